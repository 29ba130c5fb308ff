"""Tables of instruction tuning and safeguarding: kept rows, and that a row can be run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from wardround.client.models import embedded_bases, load_base
from wardround.client.pinned import WEIGHTS
from wardround.client.tasks.dro.anchors import EMBEDDED
from wardround.privacy.signing import sha256
from wardround.study.bench import dro, pacit
from wardround.study.config import Study

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(("name", "base"), [("pacit", "orders"), ("dro", "requests")])
def test_the_embedded_study_is_the_example(name: str, base: str) -> None:
    for file in ("study.toml", "policy.toml"):
        example = ROOT / "examples" / name / file
        assert example.read_bytes() == (ROOT / "study/embedded" / name / file).read_bytes()
    study = Study.read(ROOT / "examples" / name / "study.toml")
    assert study.model.sha256 == embedded_bases()[base]
    assert study.model.sha256 in study.policy.read_text(encoding="utf-8")


def test_the_plan_of_safeguarding_names_what_is_shipped() -> None:
    """Hashes of base, chat template and anchors are all in the study file, and so in every plan."""
    task = Study.read(ROOT / "examples" / "dro" / "study.toml").task
    template = str(load_base("requests").tokenizer.chat_template)
    assert task["frame"]["sha256"] == sha256(template.encode())
    anchors = EMBEDDED / task["anchors"]["folder"] / WEIGHTS
    assert task["anchors"]["sha256"] == sha256(anchors.read_bytes())


def smallest(study: Study) -> Study:
    """Two hospitals, one round of one step."""
    made = {
        "pacit": {"instances": 6, "exemplars": 2, "probes": 1},
        "dro": {"records": 60, "probes": 4},
    }
    return replace(
        study,
        study=replace(study.study, rounds=1, evaluate_every=1),
        hospitals=replace(study.hospitals, count=2),
        privacy=replace(study.privacy, steps_per_round=1),
        task={**study.task, "generated": made[study.study.task]},
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


def test_a_row_of_safeguarding_is_run_and_ablations_without_privacy_alone(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    arms = [dro.ARMS[0], dro.ARMS[3]]
    found = dro.dro_benchmark([5], out, arms, [None, 3.0], smallest)
    methods = [(row["method"], row["epsilon"]) for row in found["rows"]]
    assert methods == [(arms[0].name, None), (arms[1].name, None), (arms[0].name, 3.0)]
    assert "epsilon_spent" not in found["rows"][0]
    assert 0 < found["rows"][2]["epsilon_spent"] <= 3.0
    shown = {"none_complied_any", "text_refused_mean", "soft_complied_mean"}
    assert shown <= found["rows"][0].keys()
