"""The table of instruction tuning: kept rows, and that a row can be run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from wardround.client.models import embedded_bases
from wardround.study.bench import pacit
from wardround.study.config import Study

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(("name", "base"), [("pacit", "orders")])
def test_the_embedded_study_is_the_example(name: str, base: str) -> None:
    for file in ("study.toml", "policy.toml"):
        example = ROOT / "examples" / name / file
        assert example.read_bytes() == (ROOT / "study/embedded" / name / file).read_bytes()
    study = Study.read(ROOT / "examples" / name / "study.toml")
    assert study.model.sha256 == embedded_bases()[base]
    assert study.model.sha256 in study.policy.read_text(encoding="utf-8")


def smallest(study: Study) -> Study:
    """Two hospitals, one round of one step."""
    return replace(
        study,
        study=replace(study.study, rounds=1, evaluate_every=1),
        hospitals=replace(study.hospitals, count=2),
        privacy=replace(study.privacy, steps_per_round=1),
        task={**study.task, "generated": {"instances": 6, "exemplars": 2, "probes": 1}},
    )


def test_a_row_of_instructions_is_run_within_its_budget_and_written(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    found = pacit.pacit_benchmark([5], out, pacit.ARMS[2:3], [3.0], smallest)
    (row,) = found["rows"]
    assert (row["method"], row["epsilon"]) == ("PACIT", 3.0)
    assert 0 < row["epsilon_spent"] <= 3.0
    assert 0 <= row["few_exact_held_out"] <= 1
    assert json.loads(out.read_text(encoding="utf-8")) == row
    again = pacit.pacit_benchmark([5], out, pacit.ARMS[2:3], [3.0], lambda study: 1 / 0)
    assert again["rows"] == [row]  # from the file: nothing could be run
