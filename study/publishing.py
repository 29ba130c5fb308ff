"""What a run leaves for others: the adapter with its privacy note, and the report page.

``publish`` ends a run; ``export_run`` writes the adapter again, of any run at any time, because all
it needs is in the run's folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wardround.client.workbench import Workbench
from wardround.privacy.accountant import epsilon
from wardround.privacy.errors import BadInput
from wardround.privacy.events import Repeated
from wardround.privacy.plan import Mode
from wardround.privacy.units import Unit
from wardround.server.book import RoundRecord, last_reports, read_book, read_failures, read_history
from wardround.server.page import write_page
from wardround.strategies.checkpoint import load_checkpoint
from wardround.strategies.factors import widened
from wardround.study.run_folder import RunFolder
from wardround.study.runner import Outcome, prepare, strategy_of


def publish(folder: RunFolder, outcome: Outcome, workbench: Workbench) -> None:
    """Write the adapter and the report page of a run."""
    note = privacy_note(folder, outcome.records)
    _write_adapter(folder, folder.path / "adapter", note, workbench)
    history = read_history(folder.path / "metrics.jsonl")
    failures = read_failures(folder.path / "rounds")
    write_page(folder.path / "report.html", outcome.records, history, note, failures)


def export_run(run_dir: Path, to: Path) -> int:
    """Write the adapter of a run, as far as it has come, into a new folder.

    Returns:
        The round it is from.

    Raises:
        BadInput: Not a run, no round has ended yet, or ``to`` exists.
    """
    folder = RunFolder.open(run_dir)
    if to.exists():
        raise BadInput(f"--to: {to} exists; nothing is overwritten")
    records = tuple(read_book(run_dir / "rounds"))
    if not records:
        raise BadInput(f"{run_dir}: no round has ended yet")
    note = privacy_note(folder, records)
    with Workbench() as workbench:
        return _write_adapter(folder, to, note, workbench)


def _write_adapter(folder: RunFolder, to: Path, note: str, workbench: Workbench) -> int:
    """The newest checkpoint's model in the task's own format; returns its round."""
    study = folder.study
    workload = prepare(study, workbench)
    reached = load_checkpoint(folder.path / "checkpoint")
    model = strategy_of(study).deploy(reached.arrays)
    workload.task.export(
        workload.trainable,
        study.adapter,
        widened(model.arrays, model.background),
        study.model.base,
        to,
        note,
    )
    return reached.round


def privacy_note(folder: RunFolder, records: Sequence[RoundRecord]) -> str:
    """What whoever meets the adapter must know first.

    Which round a study stops after follows from what was released, so the epsilon of those rounds
    alone promises too much; that of all planned rounds holds whatever was released.
    """
    if folder.study.privacy.mode is Mode.NONE:
        return "NOT PRIVATE: trained without clipping or noise, for comparison only."
    reports = last_reports(records)
    worst = max(report["epsilon_study"] for report in reports.values())
    last, stopped = records[-1], ""
    if last.stopped:
        worst = max(worst, _planned_epsilon(folder))
        stopped = (
            f" The study stopped after {last.round} of {last.rounds} rounds because of what had "
            "been released by then; this is the epsilon of all of them."
        )
    report = next(iter(reports.values()))
    relied = next((r["relies_on"] for r in report["guarantees"] if r["charged"]), 1)
    noise = "noise added at the hospital"
    if report["unit"] == Unit.LABEL:
        noise = "randomised at the hospital; NOTHING ELSE of a record is protected"
    elif relied > 1:
        noise = f"counting on the noise of {relied} hospitals in every secure sum"
    return (
        f"Each hospital's {report['unit']}s are protected with epsilon at most {worst:.3f} at "
        f"delta {report['delta']:g} ({report['adjacency']}, {noise}).{stopped}"
    )


def _planned_epsilon(folder: RunFolder) -> float:
    """What all rounds of the study would have cost."""
    study = folder.study
    event = study.privacy_plan(folder.facts.noise_multiplier, 1).event
    return epsilon(Repeated(event, study.study.rounds), study.privacy.delta)
