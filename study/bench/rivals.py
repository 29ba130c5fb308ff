"""The tiny tasks that FLARE, pfl and Flower were measured with, through the whole of our path.

Policy, durable ledger, clipping, noise and signatures are on. The unit is the whole site: ordinary
steps at home, then one clip and one draw of noise on a hospital's change, which is what rivals mean
by noise on every user's update. A plain loop with the same net, rows, steps and batches runs before
and after, as the floor. The benchmark with a thousand hospitals runs the same study.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tomli_w
import torch
from torch.nn import functional

from wardround.client.models import embedded_bases
from wardround.client.workbench import Workbench
from wardround.privacy.errors import BadInput
from wardround.server.book import RoundRecord
from wardround.server.coordinator import Observer
from wardround.study.bench.tiny import Rows, TinyTask, make_net, make_rows, register_tiny_task
from wardround.study.config import Study
from wardround.study.local import begin
from wardround.study.runner import Stage, execute, peak_memory

BASE = "drugs"
LEARNING_RATE = 0.1


@dataclass(frozen=True)
class RivalsTask:
    """One of the rivals' tasks.

    Attributes:
        hospitals: Clients, all of them in every round.
        rows: A client's rows.
        steps: SGD steps a round.
        batch: Rows a step.
        rounds: Rounds of the measurement.
    """

    hospitals: int
    rows: int
    steps: int
    batch: int
    rounds: int


RIVALS_TASKS = {
    "A": RivalsTask(hospitals=4, rows=256, steps=20, batch=256, rounds=10),
    "B": RivalsTask(hospitals=50, rows=50, steps=5, batch=10, rounds=8),
}


def rivals_benchmark(name: str, rounds: int | None = None) -> dict[str, Any]:
    """Seconds a round and a client beside a plain loop, medians without the first round.

    Raises:
        BadInput: There is no such task.
    """
    if name not in RIVALS_TASKS:
        raise BadInput(f"--rivals-task is {name!r}; expected one of {', '.join(RIVALS_TASKS)}")
    task = RIVALS_TASKS[name]
    rounds = rounds or task.rounds
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        plain = _plain_rounds(task, rounds)
        ours = tiny_rounds(task, rounds)
        plain += _plain_rounds(task, rounds)
    finally:
        torch.set_num_threads(before)
    return {
        "ours": _summary(ours, task.hospitals),
        "plain_loop": _summary(plain, task.hospitals),
        "peak_memory_bytes": peak_memory(),
        "settings": {
            "task": name,
            **asdict(task),
            "rounds": rounds,
            "unit": "site",
            "load_average": [round(load, 2) for load in os.getloadavg()],
        },
    }


@dataclass(frozen=True)
class Took:
    """What one round took, in seconds."""

    wall_s: float
    processor_s: float


class Stopwatch(Observer):
    """Takes the time from the end of one round to the end of the next."""

    def __init__(self) -> None:
        self.rounds: list[Took] = []
        self._last: tuple[float, float] | None = None

    def on_round(self, record: RoundRecord) -> None:
        """A round has ended; the first one only starts the watch."""
        now = time.perf_counter(), time.process_time()
        if self._last is not None:
            self.rounds.append(Took(now[0] - self._last[0], now[1] - self._last[1]))
        self._last = now


def tiny_rounds(task: RivalsTask, rounds: int) -> list[Took]:
    """Each round but the first of a tiny study over the real path, in this process."""
    register_tiny_task()
    watch = Stopwatch()
    with (
        tempfile.TemporaryDirectory(prefix="wardround-bench-") as scratch,
        Workbench() as workbench,
    ):
        study = Study.read(_write_study(Path(scratch), task, rounds))
        folder = begin(study, Path(scratch) / "runs", None, workbench)
        execute(folder, Stage(observer=watch, workbench=workbench))
    return watch.rounds


def _summary(rounds: list[Took], hospitals: int) -> dict[str, float]:
    """Medians, a round and a client of it."""
    wall = statistics.median(round_.wall_s for round_ in rounds)
    processor = statistics.median(round_.processor_s for round_ in rounds)
    return {
        "round_s": round(wall, 5),
        "client_ms": round(1e3 * wall / hospitals, 4),
        "processor_round_s": round(processor, 5),
        "processor_client_ms": round(1e3 * processor / hospitals, 4),
        "least_round_s": round(min(round_.wall_s for round_ in rounds), 5),
    }


def _write_study(folder: Path, task: RivalsTask, rounds: int) -> Path:
    """Study and policy file of a tiny study."""
    sha256 = embedded_bases()[BASE]
    policy = {
        "budget": {"epsilon": 1000.0, "delta": 1e-5, "unit": "site"},
        "allow": {
            "tasks": [TinyTask.name],
            "bases": [sha256],
            "strategies": ["fedavg"],
            "min_noise_multiplier": 0.5,
            "max_rounds": 10_000,
            "min_units": 1,
        },
        "data": {"name": "rows", "declared_units": task.rows, "provenance": "generated"},
    }
    study = {
        "study": {
            "name": "tiny",
            "task": TinyTask.name,
            "rounds": rounds,
            "evaluate_every": rounds,
        },
        "hospitals": {"count": task.hospitals, "policy": "policy.toml"},
        "model": {"base": BASE, "sha256": sha256},
        "adapter": {},
        "privacy": {
            "unit": "site",
            "mechanism": "whole-update",
            "noise_multiplier": 1.0,
            "clip_norm": 0.1,
            "sampling_rate": 1.0,
            "steps_per_round": task.steps,
            "max_records": task.batch,
        },
        "training": {
            "optimizer": "sgd",
            "learning_rate": LEARNING_RATE,
            "micro_batch": task.batch,
        },
        "strategy": {"name": "fedavg"},
        "task": {"rows": task.rows},
    }
    (folder / "policy.toml").write_text(tomli_w.dumps(policy), encoding="utf-8")
    (folder / "study.toml").write_text(tomli_w.dumps(study), encoding="utf-8")
    return folder / "study.toml"


def _plain_rounds(task: RivalsTask, rounds: int) -> list[Took]:
    """The same training without anything around it; each round but the first."""
    generator = torch.Generator().manual_seed(0)
    tables = [make_rows(task.rows, generator) for _ in range(task.hospitals)]
    net = make_net(generator)
    values = [p.detach().clone() for p in net.parameters()]
    took = []
    for _ in range(rounds):
        started = time.perf_counter(), time.process_time()
        total = [torch.zeros_like(value) for value in values]
        for table in tables:
            _plain_client(net, values, table, task)
            for sum_, parameter in zip(total, net.parameters(), strict=True):
                sum_ += parameter.detach()
        values = [sum_ / task.hospitals for sum_ in total]
        took.append(Took(time.perf_counter() - started[0], time.process_time() - started[1]))
    return took[1:]


def _plain_client(
    net: torch.nn.Module, values: list[torch.Tensor], table: Rows, task: RivalsTask
) -> None:
    """One client's steps of plain SGD."""
    with torch.no_grad():
        for parameter, value in zip(net.parameters(), values, strict=True):
            parameter.copy_(value)
    optimizer = torch.optim.SGD(net.parameters(), lr=LEARNING_RATE)
    for step in range(task.steps):
        first = step * task.batch % task.rows
        rows = slice(first, first + task.batch)
        loss = functional.cross_entropy(net(table.features[rows]), table.labels[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
