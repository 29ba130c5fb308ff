"""What federation adds to local training: the demo's study, with the time inside training counted.

Everything else in a round is overhead: planning, signing, serialising, policy, ledger, accounting,
verifying, aggregating, reports and checkpoints. Evaluation on public probes is counted apart.
"""

from __future__ import annotations

import os
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
from wardround.study.bench.rivals import Stopwatch, Took
from wardround.study.config import Study
from wardround.study.local import begin
from wardround.study.runner import Stage, execute

_TRAIN = "train_round"  # what the custodian calls; timed by standing in for it


def round_benchmark(rounds: int) -> dict[str, Any]:
    """Shares of wall and processor time over all rounds but the first, which warms up."""
    watch = Stopwatch()
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
            execute(folder, Stage(observer=watch, workbench=workbench))
    # The watch leaves the first round out; the last one holds the evaluation.
    timed = range(2, rounds if rounds > 2 else rounds + 1)
    whole = [watch.rounds[number - 2] for number in timed]
    training = [spent[(number - 1) * hospitals : number * hospitals] for number in timed]
    found: dict[str, Any] = {}
    for clock in ("wall_s", "processor_s"):
        rounds_s = [getattr(took, clock) for took in whole]
        training_s = [sum(getattr(took, clock) for took in one) for one in training]
        found[clock] = {
            "round": [round(seconds, 4) for seconds in rounds_s],
            "training": [round(seconds, 4) for seconds in training_s],
            "overhead_share": round(1 - sum(training_s) / sum(rounds_s), 4),
        }
    load = [round(load, 2) for load in os.getloadavg()]
    settings = {"hospitals": hospitals, "rounds": rounds, "load_average": load}
    return {"overhead_share": found["processor_s"]["overhead_share"], **found, "settings": settings}


@contextmanager
def _timed_training() -> Iterator[list[Took]]:
    """What each call of the training loop took, in order, while entered."""
    spent: list[Took] = []
    real = getattr(custodian, _TRAIN)

    def timed(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter(), time.process_time()
        try:
            return real(*args, **kwargs)
        finally:
            took = Took(time.perf_counter() - started[0], time.process_time() - started[1])
            spent.append(took)

    setattr(custodian, _TRAIN, timed)
    try:
        yield spent
    finally:
        setattr(custodian, _TRAIN, real)
