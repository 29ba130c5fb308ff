"""A round small enough to be followed by hand: one linear layer, squared errors, a real ledger."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wardround.client.engine import FusedEngine
from wardround.client.gradients import Workload
from wardround.client.optimizers import Optimizer
from wardround.client.tasks.base import Batch, Record
from wardround.client.trainable import Trainable
from wardround.client.training import Round, TrainingConfig, train_round
from wardround.privacy.ledger import Charge, Ledger
from wardround.privacy.noise import Noised
from wardround.privacy.plan import PrivacyPlan
from wardround.privacy.reservation import Reservation
from wardround.privacy.signing import SigningKey
from wardround.privacy.stream import SecureStream
from wardround.privacy.units import Unit

WIDTH = 3


class Regression:
    """A task in miniature: a unit's loss is the sum of its records' squared errors."""

    name = "regression"
    units = (Unit.RECORD, Unit.PATIENT)

    def __init__(self, records_add_up: bool = False) -> None:
        self.records_add_up = records_add_up
        self.seen: list[list[int]] = []

    def collate(self, units: Sequence[Sequence[Record]], _: Any, __: Any) -> Batch:
        self.seen.append([len(unit) for unit in units])
        rows = [(n, record.content) for n, unit in enumerate(units) for record in unit]
        inputs = {"x": torch.stack([x for _, (x, _) in rows])}
        inputs["y"] = torch.tensor([y for _, (_, y) in rows])
        return Batch(inputs, torch.tensor([n for n, _ in rows]), len(units))

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        error = (model(batch.inputs["x"])[:, 0] - batch.inputs["y"]).square()
        return error.new_zeros(batch.units).index_add(0, batch.unit_of_row, error)


def records(units: int, each: int = 1) -> list[list[Record]]:
    """Made-up records, the same every time."""
    generator = torch.Generator().manual_seed(1)
    numbers = torch.randn(units, each, WIDTH + 1, generator=generator)
    return [
        [Record(f"{u}-{i}", {}, (numbers[u, i, :WIDTH], float(numbers[u, i, WIDTH])))
         for i in range(each)]
        for u in range(units)
    ]  # fmt: skip


@dataclass
class Lab:
    """Rounds on the linear layer, each charged to one ledger."""

    ledger: Ledger
    task: Any = field(default_factory=Regression)
    names: tuple[str, str] = ("base.lora_A.weight", "base.lora_B.weight")
    rounds: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        with torch.random.fork_rng():
            net = nn.Sequential(nn.Linear(WIDTH, 2, bias=False), nn.Linear(2, 1, bias=False))
        parameters = dict(zip(self.names, net.parameters(), strict=True))
        self.trainable = Trainable(net, parameters)
        self.workload = Workload(self.task, {}, self.trainable, FusedEngine(self.trainable), None)
        generator = torch.Generator().manual_seed(2)
        self.start = {
            name: torch.randn(shape, generator=generator)
            for name, shape in self.trainable.shapes.items()
        }

    def reserve(self, plan: PrivacyPlan) -> Reservation:
        number = next(self.rounds)
        return self.ledger.reserve(Charge("s", "r", number, "0" * 64, "d", plan.unit, plan.event))

    def round(self, plan: PrivacyPlan, units: Any = None, **changes: Any) -> Round:
        """A round of this plan; keyword arguments set other parts."""
        parts = {
            "workload": self.workload,
            "units": records(20) if units is None else units,
            "plan": plan,
            "training": TrainingConfig(learning_rate=0.1, optimizer=Optimizer.SGD),
            "reservation": self.reserve(plan),
            "stream": SecureStream(b"a key for tests and nothing else"[:32]),
            "on_step": lambda step, steps: None,
        }
        return Round(**parts | changes)

    def train(self, plan: PrivacyPlan, units: Any = None, **changes: Any) -> Noised:
        return train_round(self.round(plan, units, **changes), self.start).change


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    ledger = Ledger(tmp_path / "ledger", SigningKey.generate())
    yield Lab(ledger)
    ledger.close()


@pytest.fixture
def make_records() -> Callable[..., list[list[Record]]]:
    return records
