"""Evaluates what a run has learnt, on its public probes or on data of the house that runs this.

The task says what its scores are and, where it can, writes its predictions in its field's format.
Knows nothing of what they mean.

Privacy: scores and predictions on a hospital's own records are exact. They are printed and written
here and sent nowhere; whoever passes them on releases them, outside any budget.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from wardround.client.layers import background
from wardround.client.tasks.base import Predicts, Record
from wardround.client.workbench import Workbench
from wardround.privacy.errors import BadInput
from wardround.strategies.checkpoint import load_checkpoint
from wardround.study.run_folder import RunFolder
from wardround.study.runner import prepare, strategy_of


def evaluate_result(
    run_dir: Path, data: Path | None, predictions: Path | None, base: bool
) -> dict[str, Any]:
    """Scores as one JSON document.

    Args:
        run_dir: The run's folder.
        data: A file or folder the task reads; the run's probes when None.
        predictions: Where to write predictions; nothing is written when None.
        base: Evaluate the untouched base instead of the run's result.

    Raises:
        BadInput: Not a run, unreadable data, or a task that writes no predictions.
    """
    folder = RunFolder.open(run_dir)
    study = folder.study
    with Workbench() as workbench:
        workload = prepare(study, workbench)
        task: Any = workload.task
        writes = isinstance(task, Predicts)
        if predictions is not None and not writes:
            raise BadInput(f"--predictions: task {task.name!r} writes none")
        if predictions is not None and not predictions.parent.is_dir():
            raise BadInput(f"--predictions: {predictions.parent} is not a folder")
        source = data or folder.path / folder.facts.probes
        read = task.read_probes if writes else task.load
        records: list[Record] = list(read(source, study.task))
        reached = load_checkpoint(folder.path / "checkpoint")
        learnt = strategy_of(study).deploy(reached.arrays)
        if not base:
            workload.trainable.write(learnt.arrays)
        subject = (workload.trainable.model, workload.tokenizer, records, study.task)
        with background(workload.trainable.model, {} if base else learnt.background):
            scores = (
                task.evaluate(*subject)
                if predictions is None
                else task.write_predictions(*subject, predictions)
            )
    return {
        "run_dir": str(run_dir),
        "task": task.name,
        "data": str(source),
        "round": 0 if base else reached.round,
        "records": len(records),
        "predictions": None if predictions is None else str(predictions),
        "metrics": dict(scores),
    }


def show_evaluation(console: Console, document: Mapping[str, Any]) -> None:
    """The document as a table."""
    title = f"{document['records']} records of {document['data']}, round {document['round']}"
    table = Table("score", "value", title=title, title_justify="left")
    for name, value in document["metrics"].items():
        table.add_row(name, f"{value:.4f}")
    console.print(table)
    if document["predictions"]:
        console.print(f"predictions: {document['predictions']}", highlight=False, soft_wrap=True)
