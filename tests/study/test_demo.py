"""The demo's story, once, through the command: what privacy lets through and what it does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wardround.privacy.accountant import epsilon
from wardround.privacy.events import Gaussian, PoissonSampled, Repeated
from wardround.study.config import Study
from wardround.study.run_folder import RunFolder

Command = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.statistical
def test_corroborated_corrections_pass_and_single_ones_do_not(
    wardround: Command, tmp_path: Path
) -> None:
    """Noise is fresh each time, so these are bands.

    On six tuning runs the corroborated kind scored 1.00 and the single kind 0.00 throughout with
    privacy, and the single kind at least 0.88 without; the bands leave two answers of 16 or more.
    """
    ended = wardround("demo", "--json", "--runs", tmp_path / "runs")
    assert ended.code == 0, ended.err
    document = ended.document()
    metrics = document["metrics"]
    for kind in ("corroborated", "weak", "single"):
        assert metrics["before"][f"exact.unseen.{kind}"] == 0
    assert metrics["after"]["exact.unseen.corroborated"] >= 0.85
    assert metrics["after"]["exact.seen.single"] <= 0.13
    assert metrics["nonprivate"]["exact.unseen.corroborated"] >= 0.85
    assert metrics["nonprivate"]["exact.seen.single"] >= 0.7
    assert metrics["after"]["locality.random"] >= 0.9
    run = RunFolder.open(Path(document["run_dir"]))
    step = PoissonSampled(0.1, Gaussian(run.facts.noise_multiplier))
    expected = epsilon(Repeated(step, document["rounds"] * 10), 1e-5)
    assert {hospital["epsilon"] for hospital in document["hospitals"]} == {expected}
    assert 2.99 < expected <= 3
    bare = Path(document["nonprivate_run_dir"])
    assert "NOT PRIVATE" in (bare / "report.html").read_text(encoding="utf-8")


def test_the_embedded_study_is_the_example() -> None:
    """The demo runs what examples/ shows; the copy is there because a wheel holds no examples."""
    for name in ("study.toml", "policy.toml"):
        example = ROOT / "examples" / "medical-editing" / name
        embedded = ROOT / "study" / "embedded" / "medical-editing" / name
        assert example.read_bytes() == embedded.read_bytes()
    Study.read(ROOT / "examples" / "medical-editing" / "study.toml")
