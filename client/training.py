"""One hospital's round: DP-SGD from the coordinator's values to a change that may leave.

Reads like algorithm 1 of Abadi et al. (2016): sample, per-unit gradients, clip, sum, noise, step.
What is private stays inside the loop body; from ``privatise`` on every value is ``Noised`` and
carries its event. Knows nothing of ledger files, policies, tasks' insides or the network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

import torch
from torch import Tensor

from wardround.client.engine.base import Engine
from wardround.client.tasks.base import Record, Task, TaskConfig
from wardround.client.trainable import Trainable
from wardround.privacy.clipping import Clipped
from wardround.privacy.errors import WardroundError
from wardround.privacy.noise import Noised, from_coordinator
from wardround.privacy.plan import PrivacyPlan
from wardround.privacy.reservation import Reservation
from wardround.privacy.stream import SecureStream

Arrays = Mapping[str, Tensor]
OnStep = Callable[[int, int], None]


class Optimizer(StrEnum):
    """How a noised mean gradient moves the parameters."""

    ADAM = "adam"
    SGD = "sgd"


@dataclass(frozen=True)
class TrainingConfig:
    """How noised gradients become steps; post-processing, so nothing here costs privacy.

    Attributes:
        learning_rate: Step size.
        optimizer: Adam is restarted every round, so a hospital keeps no state between rounds.
        beta1: Adam's decay of the first moment.
        beta2: Adam's decay of the second moment.
        damping: Added to Adam's denominator. Far above the usual 1e-8, because an Adam that is
            restarted every round would blow gradients that are nearly zero up to full steps.
        momentum: SGD's momentum.
        micro_batch: Units whose gradients are in memory at once.
    """

    learning_rate: float
    optimizer: Optimizer = Optimizer.ADAM
    beta1: float = 0.9
    beta2: float = 0.99
    damping: float = 3e-4
    momentum: float = 0.0
    micro_batch: int = 64

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be greater than 0")
        for name in ("beta1", "beta2", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie in [0, 1)")
        if not 0 < self.damping < float("inf"):
            raise ValueError(f"damping is {self.damping}; it must be greater than 0")
        if self.micro_batch < 1:
            raise ValueError(f"micro_batch is {self.micro_batch}; it must be 1 or more")

    def start(self, parameters: Sequence[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """A fresh optimizer over ``parameters``."""
        if self.optimizer is Optimizer.ADAM:
            betas = (self.beta1, self.beta2)
            return torch.optim.Adam(
                parameters, lr=self.learning_rate, betas=betas, eps=self.damping
            )
        return torch.optim.SGD(parameters, lr=self.learning_rate, momentum=self.momentum)


@dataclass(frozen=True)
class Workload:
    """What a round trains on and with; several hospitals may share all of it but the records.

    Attributes:
        task: Turns records into one loss a unit.
        task_config: The task's settings.
        trainable: The model and what moves in it.
        engine: Forms one gradient a unit.
        tokenizer: Passed through to the task.
    """

    task: Task
    task_config: TaskConfig
    trainable: Trainable
    engine: Engine
    tokenizer: Any


def train_round(
    workload: Workload,
    units: Sequence[Sequence[Record]],
    arrays: Arrays,
    plan: PrivacyPlan,
    training: TrainingConfig,
    reservation: Reservation,
    stream: SecureStream,
    on_step: OnStep,
) -> Noised:
    """The change of the trainable values after ``plan.steps`` private steps.

    Args:
        workload: Task, model and engine.
        units: The hospital's records, one inner sequence a privacy unit.
        arrays: The coordinator's values to start from.
        plan: Sampler, clip, noise and event.
        training: The optimizer's settings.
        reservation: The ledger's proof of charge for this round.
        stream: Selection and noise.
        on_step: Called with (step, steps) after each step; must not look at data.

    Privacy: costs ``plan.event``; every step is charged through ``reservation``.
    """
    trainable = workload.trainable
    trainable.write(arrays)
    optimizer = training.start(list(trainable.parameters.values()))

    def step(_: Arrays, gradient: Arrays) -> dict[str, Tensor]:
        for name, parameter in trainable.parameters.items():
            parameter.grad = gradient[name].to(parameter)
        optimizer.step()
        optimizer.zero_grad()
        return trainable.read()

    model = from_coordinator(arrays)
    with workload.engine:
        for number in range(1, plan.steps + 1):
            chosen = plan.select(len(units), stream)
            clipped = _clipped_gradient(workload, units, chosen, plan, training.micro_batch)
            model = model.combine(plan.privatise(clipped, reservation, stream), step)
            on_step(number, plan.steps)
    change = model.then(lambda after: {name: after[name] - arrays[name] for name in after})
    require_change(change.value)
    return change


def _clipped_gradient(
    workload: Workload,
    units: Sequence[Sequence[Record]],
    chosen: Sequence[int],
    plan: PrivacyPlan,
    micro_batch: int,
) -> Clipped:
    """The sum of the chosen units' clipped gradients, a few units at a time."""
    total = plan.clipped_sum(workload.trainable.shapes)
    for start in range(0, len(chosen), micro_batch):
        members = chosen[start : start + micro_batch]
        batch = workload.task.collate(
            [units[i] for i in members], workload.tokenizer, workload.task_config
        )
        losses = partial(workload.task.losses, workload.trainable.model, batch)
        gradients = workload.engine.gradients(losses, batch.unit_of_row, batch.units)
        total.add(gradients, members)
    return total.close()


def require_change(change: Arrays) -> None:
    """Raise unless something moved; noise always does, so a still model was not trained."""
    if not any(bool(delta.any()) for delta in change.values()):
        raise WardroundError("training left every trainable value as it was; nothing is sent")
