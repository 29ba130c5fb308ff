"""Federated soft prompts against a plain loop, and what private anchors are charged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from wardround.client.pinned import WEIGHTS
from wardround.client.tasks.dro.anchors import load_anchors
from wardround.client.tasks.dro.task import DroTask
from wardround.client.workbench import Workbench
from wardround.privacy.accountant import epsilon
from wardround.privacy.events import Gaussian
from wardround.privacy.plan import Mode
from wardround.privacy.signing import sha256
from wardround.strategies.checkpoint import load_checkpoint
from wardround.study.bench.study_rows import with_privacy
from wardround.study.config import Study
from wardround.study.local import begin
from wardround.study.publishing import publish
from wardround.study.runner import Outcome, Stage, execute

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "dro" / "study.toml"


def central(count: int = 1, rounds: int = 2) -> Study:
    """The example without noise, every query in every step, plain descent."""
    study = with_privacy(Study.read(EXAMPLE), None, seed=3)
    return replace(
        study,
        study=replace(study.study, rounds=rounds, evaluate_every=rounds),
        hospitals=replace(study.hospitals, count=count),
        privacy=replace(study.privacy, sampling_rate=1.0, steps_per_round=2, clip_norm=1e6),
        training={"optimizer": "sgd", "learning_rate": 0.5},
        task={**study.task, "samples": 1, "generated": {"records": 60, "probes": 4}},
    )


def run(study: Study, runs: Path, workbench: Workbench) -> Outcome:
    folder = begin(study, runs, None, workbench)
    outcome = execute(folder, Stage(workbench=workbench))
    publish(folder, outcome, workbench)
    return outcome


def test_one_hospital_without_noise_is_a_plain_loop(tmp_path: Path) -> None:
    """Oracle: autograd on the mean loss of all its queries, four steps of plain descent."""
    study, task = central(), DroTask()
    with Workbench() as workbench:
        outcome = run(study, tmp_path, workbench)
        found = load_checkpoint(outcome.folder / "checkpoint").arrays["soft_prompt"]
        again = run(study, tmp_path, workbench)
        other = load_checkpoint(again.folder / "checkpoint").arrays["soft_prompt"]
        assert torch.equal(found, other)
        base = workbench.base(study.model.base)
        records = task.load(outcome.folder / "hospitals/hospital-1/records.jsonl", study.task)
        trainable = task.adapt(base.model, base.tokenizer, {}, study.task, torch.Generator())
        batch = task.collate([[record] for record in records], base.tokenizer, study.task)
        (prompt,) = trainable.parameters.values()
        start = prompt.detach().clone()
        for _ in range(4):
            loss = task.losses(trainable.model, batch).mean()
            (gradient,) = torch.autograd.grad(loss, [prompt])
            with torch.no_grad():
                prompt -= 0.5 * gradient
    moved = float((prompt - start).detach().norm())
    assert moved > 0.01
    # Gradients are added in another order, in float32, and four steps of descent spread that.
    assert float((found.float() - prompt.detach()).norm()) < 1e-3 * moved


def test_anchors_of_private_queries_are_charged_and_written(tmp_path: Path) -> None:
    """One Gaussian release of everybody's moments: dp-accounting on that very event."""
    study = central(rounds=1)
    study = replace(
        study,
        privacy=replace(
            study.privacy,
            mode=Mode.LOCAL,
            noise_multiplier=2.0,
            steps_per_round=1,
            clip_norm=2.5,
        ),
        training={"optimizer": "sgd", "learning_rate": 1.0},
        task={
            **{name: value for name, value in study.task.items() if name != "anchors"},
            "method": "anchors",
            "samples": 2,
        },
    )
    with Workbench() as workbench:
        outcome = run(study, tmp_path, workbench)
    (report,) = outcome.last_reports.values()
    assert report["epsilon_study"] == pytest.approx(epsilon(Gaussian(2.0), 1e-5), rel=1e-6)
    assert 0 <= outcome.after["subspace"] <= 1
    folder = outcome.folder / "adapter" / "anchors"
    pin = sha256((folder / WEIGHTS).read_bytes())
    assert load_anchors(str(folder), pin).basis.shape == (4, 64)
    assert pin in (outcome.folder / "adapter" / "README.md").read_text(encoding="utf-8")
