"""Runs a whole study on this machine: check everything, lay out the run, execute, show progress."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from rich.console import Console

from wardround.client.tasks.registry import find_task
from wardround.client.workbench import Workbench
from wardround.privacy.errors import BadInput, PolicyRefused
from wardround.privacy.events import NOTHING
from wardround.privacy.plan import RoundPlan
from wardround.privacy.policy import Policy
from wardround.study.config import Study
from wardround.study.progress import LiveProgress
from wardround.study.publishing import publish
from wardround.study.run_folder import RunFolder, create_run_folder
from wardround.study.runner import Outcome, Stage, check_stop, check_study, execute, prepare

ENGINES = ("in-process", "ray")


def run_study(
    console: Console,
    study_path: Path,
    runs: Path,
    data: Path | None = None,
    resume: Path | None = None,
    engine: str = "in-process",
    device: str = "cpu",
) -> Outcome:
    """Run the study in ``study_path``, or what is left of the run in ``resume``.

    Raises:
        WardroundError: Something cannot be used or was refused; nothing was written then, unless
            the run had already begun.
    """
    if engine not in ENGINES:
        raise BadInput(f"--engine is {engine!r}; expected one of {', '.join(ENGINES)}")
    if engine == "ray" and device != "cpu":
        raise BadInput(f"--device is {device!r}; --engine ray trains on the CPU")
    study = Study.read(study_path)
    with Workbench(device=device) as workbench:
        if resume is not None:
            folder = RunFolder.open(resume)
            require_same_study(study, folder)
        else:
            folder = begin(study, runs, data, workbench)
        return execute_with_progress(console, folder, workbench, study.study.name, engine)


def begin(
    study: Study,
    runs: Path,
    data: Path | None,
    workbench: Workbench,
    accept: Callable[[RunFolder], None] | None = None,
) -> RunFolder:
    """Check a study in every part, then lay out its run; ``accept`` may still refuse the draft."""
    check_study(study)
    if data is not None and not data.exists():
        raise BadInput(f"{data}: no such file or folder")
    Policy.read(study.policy)
    with ThreadPoolExecutor(1) as beside:
        # Calibration is arithmetic outside Python; most of preparing is importing, inside it.
        calibrated = beside.submit(study.noise_multiplier)
        prepare(study, workbench)
        noise_multiplier = calibrated.result()
    task = find_task(study.study.task)

    def accepted(draft: RunFolder) -> None:
        (accept or first_round_allowed)(draft)
        check_stop(draft, workbench)

    return create_run_folder(
        runs,
        study,
        task,
        noise_multiplier,
        data,
        datetime.now(),
        accept=accepted,
    )


def first_round_allowed(draft: RunFolder) -> None:
    """Refuse a study that some hospital would refuse in its very first round.

    Raises:
        PolicyRefused: Naming the hospital and every reason.
    """
    study, facts = draft.study, draft.facts
    for name in facts.hospitals:
        policy = Policy.read(draft.path / "hospitals" / name / "policy.toml")
        plan = first_plan(study, name, facts.noise_multiplier, policy.data.declared_units)
        decision = policy.decide(plan, NOTHING)
        if not decision.allowed:
            raise PolicyRefused(f"{name} refuses the study: {'; '.join(decision.reasons)}")


def first_plan(study: Study, hospital: str, noise_multiplier: float, units: int) -> RoundPlan:
    """A study's first plan for a hospital, as far as a policy looks at it."""
    return RoundPlan(
        study=study.study.name,
        run="",
        round=1,
        rounds=study.study.rounds,
        hospital=hospital,
        task=study.study.task,
        strategy=study.strategy.name,
        base=study.model.base,
        base_sha256=study.model.sha256,
        arrays_sha256="",
        privacy=study.privacy_plan(noise_multiplier, units),
        secure=study.privacy.secure_sum(study.hospitals.count),
    )


def require_same_study(study: Study, folder: RunFolder) -> None:
    """Refuse to go on with a run under a study file that says something else."""
    kept = replace(folder.study, path=study.path, hospitals=study.hospitals)
    changed = [
        name
        for name in ("study", "model", "privacy", "adapter", "training", "strategy", "task", "stop")
        if getattr(kept, name) != getattr(study, name)
    ]
    if changed:
        raise BadInput(
            f"{study.path} [{changed[0]}]: differs from the run in {folder.path}; a run goes on "
            "as it began"
        )


def execute_with_progress(
    console: Console, folder: RunFolder, workbench: Workbench, title: str, engine: str
) -> Outcome:
    """Execute a run while a bar moves on ``console``, then publish it."""
    if engine == "ray":
        from wardround.study.engines.ray import run_in_ray as chosen
    else:
        from wardround.study.engines.in_process import run_in_process as chosen
    progress = LiveProgress(console, title)
    stage = Stage(
        observer=progress,
        on_step=progress.on_step,
        workbench=workbench,
        engine=chosen,
    )
    try:
        outcome = execute(folder, stage)
    finally:
        progress.close()
    with console.status("writing adapter and report"):
        publish(folder, outcome, workbench)
    return outcome
