"""A budget of seconds, the control, a page to listen to, and the study cut down."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from wardround.client.bases.build_speech import SpeechRecipe
from wardround.study.bench.spectron import SAID, hundred_seconds, spectron_study
from wardround.study.config import Study

ROOT = Path(__file__).resolve().parents[3]
TINY = SpeechRecipe(
    bins=16, encoder_width=16, encoder_layers=1, width=32, layers=1, heads=2, batch=2, steps=2
)


def small(study: Study) -> Study:
    return replace(
        study,
        study=replace(study.study, rounds=1),
        hospitals=replace(study.hospitals, count=2),
        privacy=replace(study.privacy, steps_per_round=1),
        task={
            **study.task,
            "limits": {"tokens": 6, "steps": 2},
            "generated": {"speakers_per_hospital": 24, "questions": 1, "probes": 1},
        },
    )


def test_training_ends_and_answers_can_be_listened_to(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("wardround.study.bench.spectron._CHORD_VOICES", (2, 1))
    page = tmp_path / "answers.html"
    found = hundred_seconds(5.0, page, use_espeak=False, recipe=TINY)
    assert found["steps"] <= 3
    assert found["speech"] == "chords"
    assert found["voices_held_out"] == 1
    assert found["chance"] == round(1 / len(SAID), 4)
    text = page.read_text()
    assert text.count("<audio") == 2 * len(SAID)
    assert 'src="data:audio/wav' in text
    assert "http" not in text


def test_rows_are_kept_and_not_run_again(tmp_path) -> None:
    out = tmp_path / "rows.jsonl"
    found = spectron_study((0,), out, epsilons=(4.0,), shrink=small)
    assert found["summary"][0]["seeds"] == 1

    def never(study: Study) -> Study:
        raise AssertionError("run again")

    assert spectron_study((0,), out, epsilons=(4.0,), shrink=never) == found


def test_the_embedded_study_is_the_example() -> None:
    for name in ("study.toml", "policy.toml"):
        embedded = ROOT / "study" / "embedded" / "spectron" / name
        assert embedded.read_bytes() == (ROOT / "examples" / "spectron" / name).read_bytes()
