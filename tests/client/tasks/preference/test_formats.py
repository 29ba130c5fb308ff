"""Files of preferences: every layout, and every mistake named by file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wardround.client.tasks.preference.formats import read_judged, write_judged
from wardround.client.tasks.preference.records import Judged
from wardround.privacy import Unit
from wardround.privacy.errors import BadInput

DATA = Path(__file__).parents[5] / "shared" / "data" / "hh_rlhf_harmless_sample.jsonl"


def write(path: Path, *items: Any) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (
            {"prompt": "Q", "chosen": "good", "rejected": "bad"},
            Judged("Q", ("good", "bad"), (1, 0)),
        ),
        (
            {
                "prompt": [{"role": "user", "content": "Q"}],
                "chosen": [{"role": "assistant", "content": "good"}],
                "rejected": [{"role": "assistant", "content": "bad"}],
            },
            Judged("\n\nHuman: Q\n\nAssistant:", ("good", "bad"), (1, 0)),
        ),
        (
            {
                "chosen": "\n\nHuman: Q\n\nAssistant: good",
                "rejected": "\n\nHuman: Q\n\nAssistant: bad",
            },
            Judged("\n\nHuman: Q\n\nAssistant:", ("good", "bad"), (1, 0)),
        ),
        (
            {
                "chosen": [
                    {"role": "user", "content": "Q"},
                    {"role": "assistant", "content": "good"},
                ],
                "rejected": [
                    {"role": "user", "content": "Q"},
                    {"role": "assistant", "content": "bad"},
                ],
            },
            Judged("\n\nHuman: Q\n\nAssistant:", ("good", "bad"), (1, 0)),
        ),
        ({"prompt": "Q", "completion": "good", "label": True}, Judged("Q", ("good",), (1,))),
        (
            {"prompt": "Q", "replies": ["a", "b", "c"], "ranking": [2, 0, 1]},
            Judged("Q", ("a", "b", "c"), (1, 0, 2)),
        ),
        (
            {"prompt": "Q", "replies": ["a", "b"], "ratings": [3.5, -1]},
            Judged("Q", ("a", "b"), (3.5, -1)),
        ),
        (
            # What the export of a collective choice looks like.
            {"prompt": "Q", "chosen": "a", "rejected": "b", "margin": 3.0, "rule": "schulze"},
            Judged("Q", ("a", "b"), (1, 0)),
        ),
    ],
)
def test_every_layout(tmp_path: Path, item: dict[str, Any], expected: Judged) -> None:
    (record,) = read_judged(write(tmp_path / "file.jsonl", item))
    assert record.content == expected
    assert record.owners == {Unit.RECORD: record.id}


def test_owners_and_ids_survive_a_round_trip(tmp_path: Path) -> None:
    item = {"id": "x", "clinician": "c1", "patient": "p1", "prompt": "Q", "chosen": "a",
            "rejected": "b"}  # fmt: skip
    records = read_judged(write(tmp_path / "file.jsonl", item))
    assert records[0].owners == {Unit.RECORD: "x", Unit.CLINICIAN: "c1", Unit.PATIENT: "p1"}
    write_judged(records, tmp_path / "again.jsonl")
    assert read_judged(tmp_path / "again.jsonl") == records


PAIR = {"prompt": "Q", "chosen": "a", "rejected": "b"}


@pytest.mark.parametrize(
    ("item", "what"),
    [
        ([], "not a JSON object"),
        (PAIR | {"rejected": 7}, "rejected must be a text"),
        (PAIR | {"rejcted": "x"}, "rejected"),
        ({"prompt": "Q", "chosen": "a"}, "no known layout"),
        ({"chosen": "Human: a", "rejected": "b"}, "chosen has no prompt"),
        (
            {"chosen": "A\n\nAssistant: x", "rejected": "B\n\nAssistant: y"},
            "do not begin with the same",
        ),
        ({"prompt": "Q", "completion": "a", "label": 1}, "true or false"),
        ({"prompt": "Q", "replies": ["a", "b"], "ranking": [1, 1]}, r"each of 0\.\.1 once"),
        ({"prompt": "Q", "replies": ["a", "b"], "ratings": [1]}, "2 replies but 1 scores"),
        ({"prompt": "Q", "replies": ["a"], "ratings": [1e999]}, "finite"),
        (PAIR | {"clinician": "c"}, "on all lines or on none"),
        (PAIR | {"id": "file-000001"}, "occurs before, on line 1"),
    ],
)
def test_mistakes_are_named_by_file_and_line(tmp_path: Path, item: Any, what: str) -> None:
    path = write(tmp_path / "file.jsonl", PAIR, item)
    with pytest.raises(BadInput, match=what) as caught:
        read_judged(path)
    assert f"{path}:2" in str(caught.value)


def test_refusals_never_repeat_what_a_record_says(tmp_path: Path) -> None:
    path = write(tmp_path / "file.jsonl", PAIR | {"rejected": ["Mrs Example"]})
    with pytest.raises(BadInput) as caught:
        read_judged(path)
    assert "Example" not in str(caught.value)


def test_a_broken_line_and_an_empty_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    path.write_text(json.dumps(PAIR) + '\n\n{"prompt": \n')
    with pytest.raises(BadInput, match=r"file\.jsonl:3: not valid JSON"):
        read_judged(path)
    path.write_text("\n")
    with pytest.raises(BadInput, match="holds no preferences"):
        read_judged(path)
    with pytest.raises(BadInput, match="no such file"):
        read_judged(tmp_path / "absent.jsonl")


@pytest.mark.skipif(not DATA.exists(), reason="the optional data folder is absent")
def test_the_public_sample_is_read() -> None:
    records = read_judged(DATA)
    assert len(records) == 200
    assert all(record.content.prompt.endswith("\n\nAssistant:") for record in records)
    assert all(len(record.content.replies) == 2 for record in records)
