"""The preference table: what is kept from a file, what it adds up to, and that a row can be run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wardround.privacy.errors import BadInput
from wardround.study.bench.preference import ARMS, SHOWN, Size, preference_benchmark
from wardround.study.bench.study_rows import summary

ROOT = Path(__file__).resolve().parents[3]
SCORES = {"reward": 1.0, "accuracy": 0.5, "kl": 0.0, "reference_reward": 0.3}


def test_the_embedded_study_is_the_example() -> None:
    for name in ("study.toml", "policy.toml"):
        example = ROOT / "examples" / "preference" / name
        assert example.read_bytes() == (ROOT / "study/embedded/preference" / name).read_bytes()


def test_rows_of_the_file_are_not_run_again(tmp_path: Path) -> None:
    """Nothing could be trained for one step in no rounds: only the file can answer."""
    rows = tmp_path / "rows.jsonl"
    row = {"method": ARMS[0].name, "epsilon": 8.0, "seed": 4, "win_rate": 0.75, **SCORES}
    rows.write_text(json.dumps(row) + "\n", encoding="utf-8")
    found = preference_benchmark([4], rows, ARMS[:1], [8.0], Size(rounds=0))
    assert found["rows"] == [row]
    assert rows.read_text(encoding="utf-8").count("\n") == 1


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text('{"a": 1}\n', encoding="utf-8")
    with pytest.raises(BadInput, match="holds something else"):
        preference_benchmark([0], other)


def test_the_summary_is_mean_and_sample_deviation() -> None:
    """0.5, 0.6 and 0.7 have mean 0.6 and sample deviation 0.1."""
    rows = [
        {"method": "m", "epsilon": None, "seed": seed, "win_rate": value, **SCORES}
        for seed, value in enumerate((0.5, 0.6, 0.7))
    ]
    (line,) = summary(rows, SHOWN)
    assert line["win_rate"] == {"mean": 0.6, "sd": 0.1}
    assert (line["seeds"], line["epsilon"]) == (3, None)


@pytest.mark.slow
def test_an_on_policy_row_is_run_within_its_budget_and_written(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    size = Size(1, 1, 0.003, 0.5, replies=2, probes=2, hospitals=2, records_per_hospital=60)
    found = preference_benchmark([5], rows, ARMS[1:2], [3.0], size)
    (row,) = found["rows"]
    assert row["method"] == "DPO, on-policy"
    assert 0 < row["epsilon_spent"] <= 3.0
    assert 0 <= row["win_rate"] <= 1
    assert json.loads(rows.read_text(encoding="utf-8")) == row
