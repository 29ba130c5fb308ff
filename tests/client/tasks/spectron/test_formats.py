"""Spoken exchanges in files: both kinds, waves beside and inside, and what is refused."""

from __future__ import annotations

import base64
import json
import wave
from pathlib import Path

import numpy as np
import pytest

from wardround.client.tasks.spectron.audio import SAMPLE_RATE, decode, encode
from wardround.client.tasks.spectron.formats import read_exchanges, write_exchanges
from wardround.client.tasks.spectron.task import SpectronTask
from wardround.privacy import Unit
from wardround.privacy.errors import BadInput

REAL = Path(__file__).parents[4] / "../shared/data/llama_questions"
TONE = encode((0.1 * np.sin(np.arange(SAMPLE_RATE) / 5)).astype(np.float32))
INLINE = base64.b64encode(TONE).decode("ascii")
GOOD = {
    "speaker": "s",
    "question_data": INLINE,
    "answer_data": INLINE,
    "question": "a",
    "answer": "b",
}


@pytest.fixture
def file(tmp_path):
    def write(*items):
        path = tmp_path / "said.jsonl"
        path.write_text("".join(json.dumps(item) + "\n" for item in items))
        return path

    return write


def test_waves_beside_the_file_and_inside_it_are_the_same(file, tmp_path) -> None:
    (tmp_path / "q.wav").write_bytes(TONE)
    beside = {k: v for k, v in GOOD.items() if not k.endswith("_data")}
    beside |= {"question_audio": "q.wav", "answer_audio": "q.wav", "patient": "p"}
    records = read_exchanges(file(GOOD, beside))
    assert records[0].owners == {Unit.RECORD: "said-000001", Unit.SPEAKER: "s"}
    assert records[1].owners[Unit.PATIENT] == "p"
    one, other = (record.content.question.samples() for record in records)
    np.testing.assert_array_equal(one, other)


def test_speech_to_be_continued_is_cut(file) -> None:
    item = {"speaker": "s", "data": INLINE, "split_s": 0.25, "prompt_text": "a",
            "continuation_text": "b"}  # fmt: skip
    (record,) = read_exchanges(file(item))
    assert len(record.content.question.samples()) == SAMPLE_RATE // 4
    assert len(record.content.answer.samples()) == SAMPLE_RATE * 3 // 4


def test_exchanges_go_to_a_file_and_back(file, tmp_path) -> None:
    item = {"speaker": "s", "data": INLINE, "split_s": 0.5, "prompt_text": "a",
            "continuation_text": "b"}  # fmt: skip
    records = read_exchanges(file(GOOD, item))
    path = tmp_path / "again.jsonl"
    write_exchanges(records, path)
    again = read_exchanges(path)
    for one, other in zip(records, again, strict=True):
        assert (one.id, one.owners) == (other.id, other.owners)
        assert one.content.question_text == other.content.question_text
        np.testing.assert_allclose(
            one.content.answer.samples(), other.content.answer.samples(), atol=1 / 32767
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"speaker": None}, "speaker must be a text"),
        ({"question_data": "??"}, "question_data is not base64"),
        ({"question_data": base64.b64encode(b"RIFF").decode()}, "question_data: not a WAV"),
        ({"question_audio": "q.wav"}, "either question_audio or question_data"),
        ({"anser": "x"}, "unknown field; did you mean 'answer'"),
        ({"answer": " "}, "answer must be a text"),
        ({"id": "same"}, "id occurs before, on line 1"),
    ],
)
def test_bad_lines_are_refused_and_never_repeated(file, change, message) -> None:
    path = file({**GOOD, "id": "same"}, {**GOOD, "question": "secret words", **change})
    with pytest.raises(BadInput, match=message) as caught:
        read_exchanges(path)
    assert f"{path}:2" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_paths_stay_in_the_folder(file, tmp_path) -> None:
    item = {k: v for k, v in GOOD.items() if k != "question_data"} | {"question_audio": "../q.wav"}
    with pytest.raises(BadInput, match="leads out of"):
        read_exchanges(file(item))


def test_a_wave_that_was_changed_is_noticed(file, tmp_path) -> None:
    (tmp_path / "q.wav").write_bytes(TONE)
    item = {k: v for k, v in GOOD.items() if k != "question_data"} | {"question_audio": "q.wav"}
    (record,) = read_exchanges(file(item))
    (tmp_path / "q.wav").write_bytes(encode(np.zeros(100, dtype=np.float32)))
    with pytest.raises(BadInput, match="has changed"):
        record.content.question.samples()


@pytest.mark.parametrize(("rate", "channels"), [(22050, 1), (8000, 2)])
def test_other_rates_and_channels_become_16_khz_mono(tmp_path, rate, channels) -> None:
    path = tmp_path / "x.wav"
    tone = np.sin(2 * np.pi * 500 * np.arange(rate) / rate)
    whole = np.repeat((tone * 20000).astype("<i2"), channels)
    with wave.open(str(path), "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(whole.tobytes())
    samples = decode(path.read_bytes())
    assert len(samples) == pytest.approx(SAMPLE_RATE, abs=2)
    assert int(np.abs(np.fft.rfft(samples[:SAMPLE_RATE])).argmax()) == pytest.approx(500, abs=1)


def test_too_few_speakers_are_refused(file, tmp_path) -> None:
    with pytest.raises(BadInput, match="1 speakers are too few"):
        SpectronTask().deal(file(GOOD), tmp_path / "dealt", 2, 0, {})


@pytest.mark.skipif(not REAL.is_dir(), reason="the optional data folder is not there")
def test_real_questions_are_heard_and_answered(tmp_path, tokenizer, model) -> None:
    """Twelve recorded questions through features, shapes and generation; nothing about quality."""
    rows = [line.split("\t") for line in (REAL / "questions_25.tsv").read_text().splitlines()[1:]]
    items = [
        {"speaker": "reader", "question": asked, "answer": told, "answer_data": INLINE,
         "question_data": base64.b64encode((REAL / name).read_bytes()).decode("ascii")}
        for asked, told, name in rows
        if (REAL / name).exists()
    ]  # fmt: skip
    path = tmp_path / "real.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    task = SpectronTask()
    config = {"limits": {"tokens": 8, "steps": 3}}
    records = task.read_probes(path, config)
    assert len(records) == 12
    out = tmp_path / "heard.jsonl"
    found = task.write_predictions(model, tokenizer, records, config, out)
    assert found["exchanges"] == 12
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert all(len(decode((tmp_path / line["audio"]).read_bytes())) > 0 for line in lines)
