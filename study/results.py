"""What a finished run tells: one JSON document, and the same as tables for a person."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from wardround.privacy.errors import BadInput, UntrustedPeer
from wardround.privacy.report import check_reports
from wardround.server.book import read_book, read_failures, read_history
from wardround.server.page import write_page
from wardround.study.publishing import privacy_note
from wardround.study.runner import Outcome


def outcome_document(outcome: Outcome) -> dict[str, Any]:
    """A run as one JSON document."""
    return {
        "run_dir": str(outcome.folder),
        "private": outcome.private,
        "rounds": len(outcome.records),
        "stopped": outcome.stopped,
        "hospitals": [
            {
                "name": name,
                "epsilon": report["epsilon_study"],
                "epsilon_life": report["epsilon_life"],
                "delta": report["delta"],
                "unit": report["unit"],
            }
            for name, report in sorted(outcome.last_reports.items())
        ],
        "metrics": {"before": dict(outcome.before), "after": dict(outcome.after)},
        "bytes": {"up": outcome.bytes_up, "down": outcome.bytes_down},
        "seconds": round(outcome.seconds, 2),
        "memory_bytes": outcome.memory_bytes,
        "notes": list(outcome.notes),
    }


def show_outcome(console: Console, outcome: Outcome) -> None:
    """Tables for a person: scores, hospitals, sizes and where the files are."""
    for note in outcome.notes:
        console.print(note, highlight=False)
    console.print(metric_table(outcome))
    show_cost(console, outcome)
    show_files(console, outcome)


def metric_table(outcome: Outcome) -> Table:
    """Every score before and after."""
    title = "Public probes" if outcome.private else "Public probes (NOT PRIVATE)"
    table = Table("score", "before", "after", title=title, title_justify="left")
    for name, value in outcome.after.items():
        table.add_row(name, f"{outcome.before[name]:.3f}", f"{value:.3f}")
    return table


def show_cost(console: Console, outcome: Outcome) -> None:
    """Epsilon, bytes and time."""
    table = Table("hospital", "ε this study", "δ", "unit", title="Privacy", title_justify="left")
    for name, report in sorted(outcome.last_reports.items()):
        spent = report["epsilon_study"]
        shown = "NOT PRIVATE" if spent is None else f"{spent:.4f}"
        table.add_row(name, shown, f"{report['delta']:g}", report["unit"])
    console.print(table)
    console.print(
        f"{len(outcome.records)} rounds, {outcome.bytes_up / 1e6:.2f} MB up, "
        f"{outcome.bytes_down / 1e6:.2f} MB down, {outcome.seconds:.1f} s",
        highlight=False,
    )
    if outcome.stopped:
        console.print(f"stopped early: {outcome.stopped}", highlight=False)


def show_files(console: Console, outcome: Outcome) -> None:
    """Where report and adapter are."""
    for name in ("report.html", "adapter"):
        console.print(f"{name}: {outcome.folder / name}", highlight=False, soft_wrap=True)


def report_document(run_dir: Path, recompute: bool = False) -> dict[str, Any]:
    """Check a run's signed rounds, write its page again, and summarise.

    Args:
        run_dir: The run's folder.
        recompute: Also compute every epsilon anew from the events in the hospitals' reports.

    Raises:
        BadInput: Not a run's folder, or no round has ended.
        UntrustedPeer: A signature does not verify, or a hospital's reports do not fit together.
    """
    from wardround.study.run_folder import RunFolder

    folder = RunFolder.open(run_dir)
    records = tuple(read_book(run_dir / "rounds"))
    failures = read_failures(run_dir / "rounds")
    if not records:
        why = f"; {failures[-1].failed}" if failures else ""
        raise BadInput(f"{run_dir}: no round has ended yet{why}")
    reports = [a.report for record in records for a in record.answers if a.report is not None]
    problems = check_reports(reports, folder.facts.members, recompute)
    if problems:
        raise UntrustedPeer("; ".join(problems))
    history = read_history(run_dir / "metrics.jsonl")
    private = folder.study.privacy.mode.value != "none"
    outcome = Outcome(
        folder=run_dir,
        private=private,
        before=history[min(history)],
        after=history[max(history)],
        records=records,
        seconds=sum(record.seconds for record in records),
        notes=folder.facts.notes,
    )
    write_page(run_dir / "report.html", records, history, privacy_note(folder, records), failures)
    refusals = [
        {"round": record.round, "hospital": answer.hospital, "reason": answer.reason}
        for record in sorted((*records, *failures), key=lambda tried: tried.round)
        for answer in record.answers
        if answer.report is None
    ]
    return {
        **outcome_document(outcome),
        "refusals": refusals,
        "failures": [{"round": tried.round, "reason": tried.failed} for tried in failures],
        "signatures": "verified",
        "epsilons": "computed anew" if recompute else "as signed",
    }


def show_report(console: Console, document: Mapping[str, Any]) -> None:
    """The summary of ``report_document`` as text."""
    console.print(
        f"{document['rounds']} rounds, all signatures verified, epsilons {document['epsilons']}",
        highlight=False,
    )
    if document["stopped"]:
        console.print(f"stopped early: {document['stopped']}", highlight=False)
    table = Table("hospital", "ε this study", "ε ever", "δ", "unit")
    for hospital in document["hospitals"]:
        cells = (
            "NOT PRIVATE" if hospital[key] is None else f"{hospital[key]:.4f}"
            for key in ("epsilon", "epsilon_life")
        )
        table.add_row(hospital["name"], *cells, f"{hospital['delta']:g}", hospital["unit"])
    console.print(table)
    for refusal in document["refusals"]:
        console.print(
            f"round {refusal['round']}: {refusal['hospital']} sent nothing: {refusal['reason']}",
            highlight=False,
        )
    for failure in document["failures"]:
        console.print(f"failed: {failure['reason']}", highlight=False)
    console.print(f"report.html: {document['run_dir']}/report.html", soft_wrap=True)
