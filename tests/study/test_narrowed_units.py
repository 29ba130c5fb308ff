"""Settings that rule out a unit of privacy are refused at the coordinator and at the hospital."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wardround.client.record_room import grouped_by
from wardround.privacy.errors import BadInput
from wardround.privacy.units import Unit
from wardround.study.config import Study
from wardround.study.local import first_plan
from wardround.study.runner import check_study

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "pacit" / "study.toml"


def with_private_exemplars(unit: Unit) -> Study:
    study = Study.read(EXAMPLE)
    return replace(
        study,
        privacy=replace(study.privacy, unit=unit),
        task={**study.task, "exemplar_source": "private"},
    )


def test_a_study_of_rows_that_show_private_exemplars_is_not_begun(
    wardround: Callable[..., Any], tmp_path: Path
) -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    assert 'exemplar_source = "synthetic"' in text
    bad = tmp_path / "study.toml"
    bad.write_text(text.replace('"synthetic"', '"private"'), encoding="utf-8")
    ended = wardround("run", bad, "--runs", tmp_path / "runs")
    assert ended.code == 2
    assert "unit is 'record'" in ended.err
    assert not (tmp_path / "runs").exists()
    check_study(with_private_exemplars(Unit.TASK))


@pytest.mark.parametrize("unit", [Unit.RECORD, Unit.PATIENT])
def test_a_hospital_does_not_group_rows_that_show_private_exemplars(unit: Unit) -> None:
    """Whatever a coordinator let pass: what the plan says is enough to refuse it."""
    study = with_private_exemplars(unit)
    plan = replace(first_plan(study, "h", 1.0, 60), task_config=study.task)
    with pytest.raises(BadInput, match="protects: task"):
        grouped_by(plan)
    whole = replace(plan, privacy=replace(plan.privacy, unit=Unit.TASK))
    assert grouped_by(whole) is Unit.TASK
