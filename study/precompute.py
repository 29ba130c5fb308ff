"""Writes a hospital's records with what the frozen model of a study says of them, once for all.

Training then need not ask that model again in every step. Works on the machine it runs on.

Privacy: what is written is exact and about single records; it stays where the records are.
"""

from __future__ import annotations

from pathlib import Path

from wardround.client.tasks.base import Precomputes
from wardround.client.workbench import Workbench
from wardround.privacy.errors import BadInput
from wardround.study.config import Study
from wardround.study.runner import prepare


def precompute(study: Study, data: Path, out: Path, device: str = "cpu") -> int:
    """Write the records of ``data`` to ``out`` with what the study's frozen model says.

    Returns:
        How many records.

    Raises:
        BadInput: The task writes no such files, ``data`` cannot be read or ``out`` exists.
    """
    if out.exists():
        raise BadInput(f"--out: {out} exists; nothing is overwritten")
    with Workbench(device=device) as workbench:
        workload = prepare(study, workbench)
        task: object = workload.task
        if not isinstance(task, Precomputes):
            raise BadInput(f"task {study.study.task!r} has nothing to precompute")
        subject = workload.trainable.model, workload.tokenizer
        return task.precompute(*subject, data, study.task, out)
