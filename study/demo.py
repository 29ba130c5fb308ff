"""The demo: one study twice, with privacy and without, and what the difference shows.

Some corrections are backed by 64 records spread over the hospitals, some by 16, some by one record
in one hospital. Under (3, 1e-5) the first are learnt and the last are not; without privacy all
are. The settings were tuned on other seeds than the one shown.
"""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from importlib.resources import as_file, files
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from wardround.client.workbench import Workbench
from wardround.study.config import Study
from wardround.study.local import begin, execute_with_progress
from wardround.study.publishing import publish
from wardround.study.results import outcome_document, show_cost, show_files
from wardround.study.run_folder import RunFolder
from wardround.study.runner import Outcome, Stage, execute

KINDS = ("corroborated", "weak", "single")
CAVEAT = (
    "What ε does not do: a server that keeps every upload still sees a trace of each record, and "
    "the 64 records behind a corroborated correction are protected only as a group, with an ε "
    "64 times as large; that is why it could be learnt."
)


@dataclass(frozen=True)
class DemoResult:
    """Both runs of the demo."""

    study: Study
    private: Outcome
    bare: Outcome
    seconds: float


def run_demo(console: Console, runs: Path, seed: int) -> DemoResult:
    """Run the embedded study with privacy and, in a second process, without."""
    started = time.monotonic()
    embedded = files("wardround.study") / "embedded" / "medical-editing"
    one_process = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
    with Workbench() as workbench, as_file(embedded) as folder, one_process:
        study = Study.read(folder / "study.toml")
        study = replace(study, study=replace(study.study, seed=seed))
        bare_run = begin(study.with_mode_none(), runs, None, workbench)
        bare = one_process.submit(_run_alone, bare_run.path)
        private_run = begin(study, runs, None, workbench)
        # One thread each: two runs on two cores, and no thread waits for another.
        torch.set_num_threads(1)
        private = execute_with_progress(
            console, private_run, workbench, "with privacy", "in-process"
        )
        with console.status("waiting for the same study without privacy"):
            return DemoResult(study, private, bare.result(), time.monotonic() - started)


def _run_alone(path: Path) -> Outcome:
    """Execute a run in a process of its own, in silence."""
    torch.set_num_threads(1)
    with Workbench() as workbench:
        folder = RunFolder.open(path)
        outcome = execute(folder, Stage(workbench=workbench))
        publish(folder, outcome, workbench)
        return outcome


def demo_document(result: DemoResult) -> dict[str, Any]:
    """Both runs as one JSON document."""
    document = outcome_document(result.private)
    document["metrics"]["nonprivate"] = dict(result.bare.after)
    document["nonprivate_run_dir"] = str(result.bare.folder)
    document["seconds"] = round(result.seconds, 2)
    return document


def show_demo(console: Console, result: DemoResult) -> None:
    """The table a visitor reads first, then cost and files."""
    private, bare = result.private, result.bare
    table = Table(
        "correction backed by",
        "asked as",
        "before",
        "with privacy",
        "NOT PRIVATE",
        title="Answers that are exactly the corrected one",
        title_justify="left",
    )
    for kind in KINDS:
        for place, asked in (("seen", "phrasings in the records"), ("unseen", "new phrasings")):
            name = f"exact.{place}.{kind}"
            table.add_row(
                _SUPPORT[kind],
                asked,
                *(f"{m[name]:.2f}" for m in (private.before, private.after, bare.after)),
            )
    scores = (private.before, private.after, bare.after)
    table.add_row("other facts", "answers unchanged", *(f"{m['locality']:.2f}" for m in scores))
    console.print(table)
    show_cost(console, private)
    console.print(CAVEAT)
    show_files(console, private)
    console.print(f"both runs: {result.seconds:.1f} s", highlight=False)


_SUPPORT = {
    "corroborated": "64 records, 4 hospitals",
    "weak": "16 records, 4 hospitals",
    "single": "1 record, 1 hospital",
}
