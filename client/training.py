"""One hospital's round: from the coordinator's values to a change that may leave.

Reads like algorithm 1 of Abadi et al. (2016): sample, per-unit gradients, clip, sum, noise, step;
or like algorithm 1 of McMahan et al. (2018): train, clip the whole change, noise. What is private
stays inside; from ``privatise`` on every value is ``Noised`` and carries its event. Knows nothing
of ledger files, policies, tasks' insides or the network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from itertools import cycle

import torch
from torch import Tensor

from wardround.client.drift import Drift
from wardround.client.gradients import Workload, clipped_sum, mean_gradient
from wardround.client.lora import factor_groups
from wardround.client.sampling import Sample, Units, draw
from wardround.client.trainable import Trainable
from wardround.privacy.clipping import Clipped
from wardround.privacy.errors import PolicyRefused, WardroundError
from wardround.privacy.noise import Noised, from_coordinator
from wardround.privacy.plan import Mechanism, Mode, PrivacyPlan
from wardround.privacy.reservation import Reservation
from wardround.privacy.session import Session, start_session
from wardround.privacy.stream import SecureStream

__all__ = ["OnStep", "Optimizer", "TrainingConfig", "Workload", "check_plan", "train_round"]

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
        proximal_mu: FedProx: how hard steps are pulled back to the coordinator's values.
        micro_batch: Units whose gradients are in memory at once.
    """

    learning_rate: float
    optimizer: Optimizer = Optimizer.ADAM
    beta1: float = 0.9
    beta2: float = 0.99
    damping: float = 3e-4
    momentum: float = 0.0
    proximal_mu: float = 0.0
    micro_batch: int = 64

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be greater than 0")
        for name in ("beta1", "beta2", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie in [0, 1)")
        if not 0 < self.damping < float("inf"):
            raise ValueError(f"damping is {self.damping}; it must be greater than 0")
        if not 0 <= self.proximal_mu < float("inf"):
            raise ValueError(f"proximal_mu is {self.proximal_mu}; it must be 0 or more")
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


def check_plan(plan: PrivacyPlan, trainable: Trainable, in_turn: bool = False) -> None:
    """Refuse, before anything is charged, a mechanism that cannot run on this trainable.

    Raises:
        PolicyRefused: Saying what does not fit; depends on plan and model alone.
    """
    if plan.mechanism is Mechanism.ONE_SHOT:
        raise PolicyRefused("mechanism is 'one-shot', which sends statistics; this task trains")
    if in_turn and plan.mechanism is not Mechanism.DP_SGD:
        raise PolicyRefused(f"mechanism is {plan.mechanism.value!r}; turns go with dp-sgd only")
    if plan.mechanism is Mechanism.RECONSTRUCTION:
        found = len(set(factor_groups(trainable.parameters).values()))
        if found != plan.groups:
            raise PolicyRefused(f"groups is {plan.groups}; this adapter has factors of {found}")


@dataclass(frozen=True)
class Round:
    """What one round at one hospital is made of.

    Attributes:
        workload: Task, model and engine.
        units: The hospital's records, one inner sequence a privacy unit; where the plan protects
            the whole site, one a unit of the task.
        plan: Sampler, clip, noise and event.
        training: The optimizer's settings.
        reservation: The ledger's proof of charge for this round.
        stream: Selection and noise.
        on_step: Called with (step, steps) after each step; must not look at data.
        turns: Names of the arrays that move in a step, step after step in turn; without any, all
            that the workload trains move in every step. What does not move in a step is neither
            clipped nor noised in it.
        corrections: What the coordinator has added to the gradients of every step, by array.
    """

    workload: Workload
    units: Units
    plan: PrivacyPlan
    training: TrainingConfig
    reservation: Reservation
    stream: SecureStream
    on_step: OnStep
    turns: tuple[tuple[str, ...], ...] = ()
    corrections: Arrays = field(default_factory=dict)

    def drift(self, arrays: Arrays) -> Drift:
        """What is done to gradients of steps that started from these values."""
        trainable = self.workload.trainable
        return Drift(trainable, arrays, self.training.proximal_mu, self.corrections)

    def draw(self) -> Sample:
        """The records of the next step."""
        return draw(self.plan, self.units, self.stream)


def train_round(round_: Round, arrays: Arrays) -> Noised:
    """The change of the trainable values, starting from the coordinator's, after one round.

    Raises:
        WardroundError: Nothing moved although somebody's data was looked at.

    Privacy: costs ``plan.event``, and the reservation pays for every part of it. Whether the round
    was empty shows only where nothing is protected anyway: noise always moves something.
    """
    plan, workload = round_.plan, round_.workload
    workload.trainable.write(arrays)
    if plan.mechanism is Mechanism.WHOLE_UPDATE:
        change, looked = _whole_update(round_, arrays)
    elif plan.mechanism is Mechanism.RECONSTRUCTION:
        change, looked = _noised_steps(round_, arrays, plan, partial(_clipped_batch, round_))
    elif round_.turns:
        session = start_session(plan)
        change, looked = _noised_steps(round_, arrays, session, _in_turn(round_, session))
    else:
        session, micro_batch = start_session(plan), round_.training.micro_batch
        with workload.engine:
            clip = partial(clipped_sum, workload, session=session, micro_batch=micro_batch)
            change, looked = _noised_steps(round_, arrays, session, clip)
    if looked or plan.mode is not Mode.NONE:
        require_change(change.value)
    return change


def _noised_steps(
    round_: Round, arrays: Arrays, session: Session, clip: Callable[[Sample], Clipped]
) -> tuple[Noised, bool]:
    """Steps on noised gradients, and whether any unit was in any of them."""
    move, drift = _Move(round_.workload.trainable, round_.training), round_.drift(arrays)
    model, looked = from_coordinator(arrays), False
    for number in range(1, round_.plan.steps + 1):
        sample = round_.draw()
        looked = looked or bool(sample.members)
        noised = session.privatise(clip(sample), round_.reservation, round_.stream)
        model = model.combine(noised, lambda _, gradient: move(drift.correct(gradient)))
        round_.on_step(number, round_.plan.steps)
    return model.then(lambda after: _difference(after, arrays)), looked


def _in_turn(round_: Round, session: Session) -> Callable[[Sample], Clipped]:
    """Clips, step after step, what moves in that step."""
    turns = cycle(round_.turns)

    def clip(sample: Sample) -> Clipped:
        with round_.workload.only(next(turns)) as part, part.engine:
            return clipped_sum(part, sample, session, round_.training.micro_batch)

    return clip


def _clipped_batch(round_: Round, sample: Sample) -> Clipped:
    """The batch's mean gradient with factors A and B clipped apart, as DP-LoRA was published."""
    gradient = mean_gradient(round_.workload, sample, round_.training.micro_batch)
    return round_.plan.clip_batch_gradient(gradient, factor_groups(gradient))


def _whole_update(round_: Round, arrays: Arrays) -> tuple[Noised, bool]:
    """Ordinary steps at home; their whole change is clipped and noised once."""
    plan, trainable = round_.plan, round_.workload.trainable
    move, drift = _Move(trainable, round_.training), round_.drift(arrays)
    looked = False
    try:
        after: Arrays = trainable.read()
        for number in range(1, plan.steps + 1):
            sample = round_.draw()
            looked = looked or bool(sample.members)
            gradient = mean_gradient(round_.workload, sample, round_.training.micro_batch)
            after = move(drift.correct(gradient))
            round_.on_step(number, plan.steps)
    finally:
        trainable.write(arrays)  # a shared model must not go on holding one hospital's bare values
    clipped = plan.clip_update(_difference(after, arrays))
    return plan.privatise(clipped, round_.reservation, round_.stream), looked


class _Move:
    """An optimizer over the trainable parameters: a gradient in, the values after the step out."""

    def __init__(self, trainable: Trainable, training: TrainingConfig) -> None:
        self._trainable = trainable
        self._optimizer = training.start(list(trainable.parameters.values()))

    def __call__(self, gradient: Arrays) -> dict[str, Tensor]:
        """One step."""
        for name, parameter in self._trainable.parameters.items():
            parameter.grad = gradient[name].to(parameter) if name in gradient else None
        self._optimizer.step()
        self._optimizer.zero_grad()
        return self._trainable.read()


def _difference(after: Arrays, before: Arrays) -> dict[str, Tensor]:
    """What changed."""
    return {name: array - before[name] for name, array in after.items()}


def require_change(change: Arrays) -> None:
    """Raise unless something moved; noise always does, so a still model was not trained."""
    if not any(bool(delta.any()) for delta in change.values()):
        raise WardroundError("training left every trainable value as it was; nothing is sent")
