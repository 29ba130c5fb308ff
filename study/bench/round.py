"""What federation adds to local training: the demo's study, with the time inside training counted.

Everything else in a round is overhead: planning, signing, serialising, policy, ledger, accounting,
verifying, aggregating, reports and checkpoints. Evaluation on public probes is counted apart.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from wardround.client import custodian
from wardround.client.workbench import Workbench
from wardround.study.config import Study
from wardround.study.local import begin
from wardround.study.runner import Stage, execute

_TRAIN = "train_round"  # what the custodian calls; timed by standing in for it


def round_benchmark(rounds: int) -> dict[str, Any]:
    """Shares of wall time over all rounds but the first, which warms up."""
    with (
        as_file(files("wardround.study") / "embedded" / "medical-editing") as example,
        tempfile.TemporaryDirectory(prefix="wardround-bench-") as scratch,
        Workbench() as workbench,
    ):
        study = Study.read(example / "study.toml")
        section = replace(study.study, rounds=rounds, evaluate_every=rounds)
        folder = begin(replace(study, study=section), Path(scratch), None, workbench)
        hospitals = len(folder.facts.hospitals)
        with _timed_training() as spent:
            outcome = execute(folder, Stage(workbench=workbench))
    # The first round warms up and the last one holds the evaluation.
    timed = outcome.records[1:-1] if rounds > 2 else outcome.records[1:]
    training = [
        sum(spent[(record.round - 1) * hospitals : record.round * hospitals]) for record in timed
    ]
    whole = [record.seconds for record in timed]
    return {
        "round_s": [round(seconds, 4) for seconds in whole],
        "training_s": [round(seconds, 4) for seconds in training],
        "overhead_share": round(1 - sum(training) / sum(whole), 4),
        "settings": {"hospitals": hospitals, "rounds": rounds},
    }


@contextmanager
def _timed_training() -> Iterator[list[float]]:
    """Seconds of each call of the training loop, in order, while entered."""
    spent: list[float] = []
    real = getattr(custodian, _TRAIN)

    def timed(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return real(*args, **kwargs)
        finally:
            spent.append(time.perf_counter() - started)

    setattr(custodian, _TRAIN, timed)
    try:
        yield spent
    finally:
        setattr(custodian, _TRAIN, real)
