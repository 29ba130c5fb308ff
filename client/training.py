"""One hospital's round: from the coordinator's values to a change that may leave.

Reads like algorithm 1 of Abadi et al. (2016): sample, per-unit gradients, clip, sum, noise, step;
or like algorithm 1 of McMahan et al. (2018): train, clip the whole change, noise. What is private
stays inside; from ``privatise`` on every value is ``Noised`` and carries its event. Knows nothing
of ledger files, policies, tasks' insides or the network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import cycle
from typing import Any, Literal

from torch import Tensor

from wardround.client.drift import Drift
from wardround.client.gradients import Workload, clipped_sum, mean_gradient
from wardround.client.labels import draw_labels, relabelled
from wardround.client.lora import factor_groups
from wardround.client.optimizers import Descent, Moments, OptimizerConfig
from wardround.client.sampling import Sample, Units, draw
from wardround.client.schedules import Schedule
from wardround.client.smoothing import smooth
from wardround.client.trainable import Trainable
from wardround.privacy.clipping import Clipped
from wardround.privacy.errors import PolicyRefused, WardroundError
from wardround.privacy.label_book import LabelBook
from wardround.privacy.loss_report import LOSS
from wardround.privacy.noise import Noised, from_coordinator
from wardround.privacy.plan import Mechanism, PrivacyPlan
from wardround.privacy.reservation import Reservation
from wardround.privacy.session import Session, start_session
from wardround.privacy.stream import SecureStream

Arrays = Mapping[str, Tensor]
Clip = Callable[[Sample], Clipped]
OnStep = Callable[[int, int], None]


@dataclass(frozen=True)
class TrainingConfig(OptimizerConfig):
    """``[training]``: the optimizer's settings, and how they are carried out.

    Attributes:
        proximal_mu: FedProx: how hard steps are pulled back to the coordinator's values.
        micro_batch: Units whose gradients are in memory at once, or ``auto`` to have it measured.
        schedule: The learning rate over the study.
        keep_state: Go on with the moments of the round before, which stay at the hospital; by
            default an optimizer starts afresh every round.
        smoothing: Smooth noised gradients of LoRA factors along features.
    """

    proximal_mu: float = 0.0
    micro_batch: int | Literal["auto"] = 64
    schedule: Schedule = field(default_factory=Schedule)
    keep_state: bool = False
    smoothing: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.proximal_mu < float("inf"):
            raise ValueError(f"proximal_mu is {self.proximal_mu}; it must be 0 or more")
        if self.micro_batch != "auto" and self.micro_batch < 1:
            raise ValueError(f"micro_batch is {self.micro_batch}; it must be 1 or more")


def check_plan(
    plan: PrivacyPlan, training: TrainingConfig, trainable: Trainable, in_turn: bool = False
) -> None:
    """Refuse, before anything is charged, what cannot run on this trainable.

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
    if plan.mechanism is Mechanism.WHOLE_UPDATE and training.keep_state:
        raise PolicyRefused("keep_state is on; moments of a whole update are bare and not kept")


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
        number: This round, from 1.
        rounds: Rounds of the study.
        moments: What the optimizer remembers of earlier rounds, or None to start it afresh.
        notebook: Where the task may keep what it wrote for a record, until the round is over.
        labels: Where labels that went through randomised response are kept over the run.
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
    number: int = 1
    rounds: int = 1
    moments: Moments | None = None
    notebook: dict[str, Any] = field(default_factory=dict)
    labels: LabelBook | None = None

    def drift(self, arrays: Arrays) -> Drift:
        """What is done to gradients of steps that started from these values."""
        trainable = self.workload.trainable
        return Drift(trainable, arrays, self.training.proximal_mu, self.corrections)

    @property
    def micro_batch(self) -> int:
        """Units whose gradients are in memory at once; ``auto`` must have been measured."""
        if self.training.micro_batch == "auto":
            raise ValueError("micro_batch is still 'auto'; measure it before the round")
        return self.training.micro_batch

    def draw(self, step: int) -> Sample:
        """The records of this step, from 1, as the task learns from them."""
        sample = draw(self.plan, self.units, self.stream)
        return self.workload.before_step(sample, step, self.notebook, self.stream)

    def factor(self, step: int) -> float:
        """What the schedule makes of the learning rate at this step, from 1."""
        schedule = self.training.schedule
        return schedule.factor(self.number, self.rounds, step, self.plan.steps)


@dataclass(frozen=True)
class Trained:
    """What a round came to.

    Attributes:
        change: May leave.
        moments: What the optimizer would go on with; stays.
    """

    change: Noised
    moments: Moments


def train_round(round_: Round, arrays: Arrays) -> Trained:
    """The change of the trainable values, starting from the coordinator's, after one round.

    Raises:
        WardroundError: Nothing moved although somebody's data was looked at.

    Privacy: costs ``plan.event``, and the reservation pays for every part of it. Whether the round
    was empty shows only where nothing is protected anyway: noise always moves something.
    """
    plan, workload = round_.plan, round_.workload
    workload.trainable.write(arrays)
    descent = Descent(round_.training, workload.trainable.parameters, round_.moments)
    session, micro_batch = start_session(plan), round_.micro_batch
    if plan.mechanism is Mechanism.WHOLE_UPDATE:
        clipped, looked = whole_change(round_, arrays, descent)
        change = plan.privatise(clipped, round_.reservation, round_.stream)
    elif plan.mechanism is Mechanism.LABELS:
        change, looked = _on_noised_labels(round_, arrays, descent)
    elif plan.mechanism is Mechanism.RECONSTRUCTION:
        clip: Clip = partial(_clipped_batch, round_)
        change, looked = _noised_steps(round_, arrays, descent, session, clip)
    elif round_.turns:
        clip = _in_turn(round_, session)
        change, looked = _noised_steps(round_, arrays, descent, session, clip)
    else:
        with workload.engine:
            clip = partial(clipped_sum, workload, session=session, micro_batch=micro_batch)
            change, looked = _noised_steps(round_, arrays, descent, session, clip)
    if looked or plan.noise_deviation:
        require_change({name: d for name, d in change.value.items() if name != LOSS})
    return Trained(change, descent.moments())


def _noised_steps(
    round_: Round, arrays: Arrays, descent: Descent, session: Session, clip: Clip
) -> tuple[Noised, bool]:
    """Steps on noised gradients, and whether any unit was in any of them."""
    model, drift, looked = from_coordinator(arrays), round_.drift(arrays), False
    filtered = smooth if round_.training.smoothing else dict
    for number in range(1, round_.plan.steps + 1):
        sample = round_.draw(number)
        looked = looked or bool(sample.members)
        deviation = session.noise_deviation
        noised = session.privatise(clip(sample), round_.reservation, round_.stream)
        move = partial(descent.step, factor=round_.factor(number), noise_deviation=deviation)

        def step(told: Arrays, move: Callable[[Arrays], Arrays] = move) -> Arrays:
            gradient = {name: array for name, array in told.items() if name != LOSS}
            moved = move(drift.correct(filtered(gradient)))
            return {**moved, LOSS: told[LOSS]} if LOSS in told else moved

        model = model.combine(noised.then(step), _carry_on)
        round_.on_step(number, round_.plan.steps)
    return model.then(lambda after: _change(after, arrays, round_.plan.steps)), looked


def _in_turn(round_: Round, session: Session) -> Clip:
    """Clips, step after step, what moves in that step."""
    turns = cycle(round_.turns)

    def clip(sample: Sample) -> Clipped:
        with round_.workload.only(next(turns)) as part, part.engine:
            return clipped_sum(part, sample, session, round_.micro_batch)

    return clip


def _clipped_batch(round_: Round, sample: Sample) -> Clipped:
    """The batch's mean gradient with factors A and B clipped apart, as DP-LoRA was published."""
    gradient = mean_gradient(round_.workload, sample, round_.micro_batch)
    return round_.plan.clip_batch_gradient(gradient, factor_groups(gradient))


def whole_change(round_: Round, arrays: Arrays, descent: Descent) -> tuple[Clipped, bool]:
    """Ordinary steps at home; their whole change, clipped, and whether any unit was in any step.

    Privacy: bare until it is noised; the unit is the site.
    """
    after, looked = _steps_at_home(round_, arrays, descent)
    return round_.plan.clip_update(_difference(after, arrays)), looked


def _on_noised_labels(round_: Round, arrays: Arrays, descent: Descent) -> tuple[Noised, bool]:
    """Ordinary steps on records whose labels went through randomised response.

    Privacy: the change is computed from noised labels; texts are used as they are.
    """
    plan, workload, book = round_.plan, round_.workload, round_.labels
    if book is None:
        raise ValueError("the plan randomises labels; the round has no book to keep them in")
    noised = draw_labels(workload, round_.units, book, plan, round_.reservation, round_.stream)
    looked: list[bool] = []

    def learn(labels: Arrays) -> Arrays:
        seen = replace(round_, units=relabelled(workload, round_.units, labels))
        after, anybody = _steps_at_home(seen, arrays, descent)
        looked.append(anybody)
        return {name: moved.float() for name, moved in _difference(after, arrays).items()}

    return noised.then(learn), looked[0]


def _steps_at_home(round_: Round, arrays: Arrays, descent: Descent) -> tuple[Arrays, bool]:
    """Values after ordinary steps, and whether any unit was in any of them.

    Privacy: bare; neither clipped nor noised.
    """
    plan, trainable = round_.plan, round_.workload.trainable
    drift, after, looked = round_.drift(arrays), arrays, False
    try:
        for number in range(1, plan.steps + 1):
            sample = round_.draw(number)
            looked = looked or bool(sample.members)
            gradient = mean_gradient(round_.workload, sample, round_.micro_batch)
            corrected = drift.correct(gradient)
            after = descent.step(corrected, round_.factor(number), noise_deviation=0.0)
            round_.on_step(number, plan.steps)
    finally:
        trainable.write(arrays)  # a shared model must not go on holding one hospital's bare values
    return after, looked


def _carry_on(before: Arrays, after: Arrays) -> Arrays:
    """The values after a step; reported losses add up over steps."""
    if LOSS not in after:
        return after
    return {**after, LOSS: after[LOSS] + before[LOSS] if LOSS in before else after[LOSS]}


def _change(after: Arrays, before: Arrays, steps: int) -> dict[str, Tensor]:
    """What changed, and the mean of what was reported beside it."""
    values = {name: array for name, array in after.items() if name != LOSS}
    told = {LOSS: (after[LOSS] / steps).reshape(1).float()} if LOSS in after else {}
    return {**_difference(values, before), **told}


def _difference(after: Arrays, before: Arrays) -> dict[str, Tensor]:
    """What changed."""
    return {name: array - before[name] for name, array in after.items()}


def require_change(change: Arrays) -> None:
    """Raise unless something moved; noise always does, so a still model was not trained."""
    if not any(bool(delta.any()) for delta in change.values()):
        raise WardroundError("training left every trainable value as it was; nothing is sent")
