"""Parts of ``[strategy]`` from the study file to the checkpoint, and what is refused on the way."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wardround.privacy.accountant import epsilon
from wardround.privacy.events import Gaussian, PoissonSampled, Repeated
from wardround.strategies.checkpoint import load_checkpoint

Command = Callable[..., Any]
SGD = 'optimizer = "sgd"\nlearning_rate = 0.5'
ADAM = 'optimizer = "adam"\nlearning_rate = 0.02'


def rewrite(study: Path, strategy: str, training: str = SGD) -> None:
    """Other parts and another optimizer at the hospitals."""
    text = study.read_text(encoding="utf-8")
    for old, new in (('name = "fedavg"', f'name = "fedavg"\n{strategy}'), (ADAM, training)):
        assert old in text
        text = text.replace(old, new)
    study.write_text(text, encoding="utf-8")


def test_a_study_with_controls_and_an_optimiser(
    wardround: Command, small_study: Path, tmp_path: Path
) -> None:
    """SCAFFOLD and FedAdam cost what the same study costs without them, and are checkpointed."""
    rewrite(small_study, 'scaffold = true\nserver = "adam"')
    ended = wardround("run", small_study, "--json", "--runs", tmp_path / "runs")
    assert ended.code == 0, ended.err
    document = ended.document()
    # As for any study of 2 rounds x 2 steps; controls are part of the change, not a release more.
    expected = epsilon(Repeated(PoissonSampled(0.1, Gaussian(1.0)), 4), 1e-5)
    assert [h["epsilon"] for h in document["hospitals"]] == [expected, expected]
    names = load_checkpoint(Path(document["run_dir"]) / "checkpoint").arrays.keys()
    adapter = {name for name in names if not name.startswith("server/")}
    assert {f"server/control/hospital-1/{name}" for name in adapter} <= names
    assert {f"server/optimizer/second/{name}" for name in adapter} <= names
    # 3 layers x rank 8 x (344 + 128) float32 numbers; in round 2 as much again for corrections.
    payload = 3 * 8 * (344 + 128) * 4
    assert payload * 6 < document["bytes"]["down"] < payload * 6 * 1.1
    assert payload * 4 < document["bytes"]["up"] < payload * 4 * 1.1
    report = wardround("report", document["run_dir"], "--verify", "--json")
    assert report.code == 0, report.err


@pytest.mark.parametrize(
    ("strategy", "training", "says"),
    [
        ('robust = "krum"', SGD, r"\[strategy\] robust is 'krum'.* needs 5 answers.* 2 hospitals"),
        ('server = "adam"', ADAM, r"\[strategy\] noise_correction is 'plan'.*not known"),
        ("scaffold = true", ADAM, r"\[strategy\] scaffold .* optimizer = 'sgd'"),
        ("buffer = 3", SGD, r"\[strategy\] buffer is 3; there are only 2 hospitals"),
        ('weights = "records"', SGD, r"\[strategy\] weights is 'records'.*secret"),
    ],
)
def test_what_does_not_go_together_writes_nothing(
    wardround: Command,
    small_study: Path,
    tmp_path: Path,
    strategy: str,
    training: str,
    says: str,
) -> None:
    rewrite(small_study, strategy, training)
    ended = wardround("run", small_study, "--runs", tmp_path / "runs")
    assert ended.code == 2
    assert re.search(says, ended.err), ended.err
    assert not (tmp_path / "runs").exists()
