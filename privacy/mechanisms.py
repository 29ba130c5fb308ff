"""Mechanisms: sampler, clip, noise and accounting event in one frozen plan (law 4).

What runs is what is accounted, because both are read from the same object; the idea of
jax_privacy's ``DPExecutionPlan``. A whole round is one plan: per-unit DP-SGD by default, one
clipped and noised update of a whole site, one noised statistic, DP-LoRA as published, or labels by
randomised response.
Sources: Abadi et al. (2016), algorithm 1; McMahan et al. (2018) for whole updates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from wardround.privacy.adaptive import AdaptiveClip
from wardround.privacy.clipping import Clipped, ClippedSum, ClipRule, clip_update
from wardround.privacy.events import (
    Event,
    Gaussian,
    PoissonSampled,
    RandomisedResponse,
    Repeated,
    Unprotected,
)
from wardround.privacy.loss_report import LOSS, LossReport
from wardround.privacy.noise import Arrays, Noised, add_gaussian, pass_unprotected
from wardround.privacy.reconstruction import LABEL, clip_batch_gradient, effective_multiplier
from wardround.privacy.reservation import Reservation
from wardround.privacy.stream import SecureStream
from wardround.privacy.units import Adjacency, Unit

LABEL_CLASSES = 2  # labels that randomised response may hide say which of two is so


class Mode(StrEnum):
    """Who adds noise.

    Each hospital all of it (local), each a share of it so that only a sum of several carries it all
    (distributed), or nobody (data declared public or generated).
    """

    LOCAL = "local"
    DISTRIBUTED = "distributed"
    NONE = "none"


class Mechanism(StrEnum):
    """What a round does to the data."""

    DP_SGD = "dp-sgd"
    WHOLE_UPDATE = "whole-update"
    ONE_SHOT = "one-shot"
    RECONSTRUCTION = "reconstruction"
    LABELS = "label-response"

    @property
    def description(self) -> str:
        """In words, for reports."""
        return {
            Mechanism.DP_SGD: "Poisson-sampled Gaussian on clipped per-unit gradients (DP-SGD)",
            Mechanism.WHOLE_UPDATE: "Gaussian on the clipped change of a whole site",
            Mechanism.ONE_SHOT: "Gaussian on one sum of clipped contributions",
            Mechanism.RECONSTRUCTION: LABEL,
            Mechanism.LABELS: "randomised response on labels, once a study; nothing else of a "
            "record is protected, and nothing is clipped or noised",
        }[self]


@dataclass(frozen=True)
class PrivacyPlan:
    """What one hospital does in one round: sample, clip, sum, add noise, divide; ``steps`` times.

    Attributes:
        unit: Who is protected.
        clip_norm: Longest joint L2 norm one unit may contribute to a step.
        noise_multiplier: Noise standard deviation in units of the sensitivity; 0 in mode none. For
            the reconstruction it is the paper's sigma, in units of the clip norm.
        sampling_rate: Probability with which each unit joins a step.
        steps: Optimizer steps in this round; for a whole update, steps at home that cost nothing.
        expected_units: Public denominator: ``sampling_rate`` times the declared number of units.
        mode: Who adds noise.
        adjacency: Which data sets are neighbours; the accountant knows add/remove.
        mechanism: What a round does to the data.
        clip_rule: How a contribution is brought to its bound.
        adaptive: How the clip norm follows the data, or None for a fixed one; starts afresh at
            ``clip_norm`` each round.
        max_records: Most records of one unit that enter a step, or None for all.
        groups: For the reconstruction, how many parts of the gradient are clipped apart.
        shares: How many hospitals' noise together makes ``noise_multiplier``; 1 unless distributed.
        honest_hospitals: Of how many of them, this one included, the charge relies on that they add
            their noise and keep it to themselves; 1 relies on nobody else.
        losses: How the losses of a step are released beside its gradients, or None if they stay.
        keep_probability: For randomised response on labels, the chance that a label is passed on
            without a draw; None for everything else.
    """

    unit: Unit
    clip_norm: float
    noise_multiplier: float
    sampling_rate: float
    steps: int
    expected_units: float
    mode: Mode = Mode.LOCAL
    adjacency: Adjacency = Adjacency.ADD_REMOVE
    mechanism: Mechanism = Mechanism.DP_SGD
    clip_rule: ClipRule = ClipRule.FLAT
    adaptive: AdaptiveClip | None = None
    max_records: int | None = None
    groups: int = 2
    shares: int = 1
    honest_hospitals: int = 1
    losses: LossReport | None = None
    keep_probability: float | None = None

    def __post_init__(self) -> None:
        for name in ("clip_norm", "expected_units"):
            value = getattr(self, name)
            bound(name, value, 0 < value < math.inf, "finite and greater than 0")
        if self.mode is Mode.NONE or self.mechanism is Mechanism.LABELS:
            least = self.noise_multiplier == 0
            bound("noise_multiplier", self.noise_multiplier, least, "0 in mode none and for labels")
        else:
            positive = 0 < self.noise_multiplier < math.inf
            bound("noise_multiplier", self.noise_multiplier, positive, "finite and greater than 0")
        bound("sampling_rate", self.sampling_rate, 0 < self.sampling_rate <= 1, "in (0, 1]")
        for name in ("steps", "groups"):
            bound(name, getattr(self, name), getattr(self, name) >= 1, "1 or more")
        if self.max_records is not None:
            bound("max_records", self.max_records, self.max_records >= 1, "1 or more")
        self._check_labels()
        self._check_mechanism()

    def _check_labels(self) -> None:
        """Refuse randomised response on anything but labels, and labels without it."""
        labels = self.mechanism is Mechanism.LABELS
        if labels != (self.unit is Unit.LABEL) or labels != (self.keep_probability is not None):
            raise ValueError("unit label, mechanism label-response and its probability go together")
        fits = self.adjacency is (Adjacency.REPLACE_ONE if labels else Adjacency.ADD_REMOVE)
        if not fits:
            raise ValueError(
                "adjacency must be add-remove, which Poisson sampling is accounted for; of labels "
                "it must be replace-one"
            )
        if labels and (self.mode is not Mode.LOCAL or self.adaptive is not None):
            raise ValueError("label-response goes with mode local, without adaptive clipping")

    def _check_mechanism(self) -> None:
        """Refuse settings that the mechanism's accounting does not hold for."""
        if self.mechanism is Mechanism.WHOLE_UPDATE:
            bound("unit", self.unit, self.unit is Unit.SITE, "site for a whole update")
            bound("sampling_rate", self.sampling_rate, self.sampling_rate == 1, "1 for it")
            bound("expected_units", self.expected_units, self.expected_units == 1, "1 for it")
        elif self.mechanism is Mechanism.RECONSTRUCTION:
            fits = self.unit in (Unit.SITE, Unit.RECORD)
            bound("unit", self.unit, fits, "site or record for the reconstruction")
            bound("expected_units", self.expected_units, self.expected_units == 1, "1 for it")
        elif self.unit is Unit.SITE:
            raise ValueError("unit is site; only a whole update or the reconstruction protects it")
        if self.mechanism is Mechanism.ONE_SHOT:
            bound("steps", self.steps, self.steps == 1, "1 for a one-shot release")
        if self.adaptive is not None:
            if self.mechanism is not Mechanism.DP_SGD or self.mode is Mode.NONE:
                raise ValueError("adaptive clipping goes with private dp-sgd only")
            self.adaptive.gradient_multiplier(self.noise_multiplier)
        self._check_losses()
        self._check_shares()

    def _check_losses(self) -> None:
        """Refuse losses where their noise is not part of a step's."""
        if self.losses is None:
            return
        plain = self.mechanism is Mechanism.DP_SGD and self.mode is Mode.LOCAL
        if not plain or self.adaptive is not None:
            raise ValueError(
                "losses are released with dp-sgd in mode local and without adaptive clipping only"
            )
        self.losses.gradient_multiplier(self.noise_multiplier)

    def _check_shares(self) -> None:
        """Refuse shares of noise where a sum of updates is not one noised sum."""
        if self.mode is not Mode.DISTRIBUTED:
            bound("shares", self.shares, self.shares == 1, "1 unless mode is distributed")
            return
        bound("shares", self.shares, self.shares >= 1, "1 or more")
        relied = self.honest_hospitals
        bound("honest_hospitals", relied, 1 <= relied <= self.shares, f"in 1..{self.shares}")
        if self.mechanism is Mechanism.DP_SGD:
            # After a second step an update is no longer linear in the noise, and noises of several
            # hospitals do not add up.
            bound("steps", self.steps, self.steps == 1, "1 for distributed noise on gradients")
        elif self.mechanism is not Mechanism.WHOLE_UPDATE:
            raise ValueError("mode distributed goes with dp-sgd or whole-update")
        if self.adaptive is not None:
            raise ValueError("mode distributed has a fixed clip norm; remove adaptive")

    @property
    def share_multiplier(self) -> float:
        """The noise that this hospital adds itself, in units of the sensitivity."""
        return self.noise_multiplier / math.sqrt(self.shares)

    def relying_on(self, hospitals: int) -> float:
        """The noise multiplier of a sum to which this many add their share and stay silent."""
        return self.share_multiplier * math.sqrt(hospitals)

    @property
    def effective_multiplier(self) -> float:
        """The noise in units of how far the released value can move; what a policy judges."""
        if self.mechanism is Mechanism.RECONSTRUCTION:
            return effective_multiplier(self.noise_multiplier, self.unit, self.groups)
        if self.mode is Mode.DISTRIBUTED:
            return self.relying_on(self.honest_hospitals)
        return self.noise_multiplier

    @property
    def noise_deviation(self) -> float:
        """Standard deviation of the noise on each number that ``privatise`` gives; public."""
        own = self.share_multiplier
        if self.losses is not None:
            own = self.losses.gradient_multiplier(self.noise_multiplier)
        return own * self.clip_norm / self.expected_units

    @property
    def step_event(self) -> Event:
        """What one step does to the data."""
        if self.mode is Mode.NONE:
            return Unprotected()
        if self.keep_probability is not None:
            return RandomisedResponse(self.keep_probability, LABEL_CLASSES)
        gaussian = Gaussian(self.effective_multiplier)
        if self.mechanism is Mechanism.WHOLE_UPDATE:
            return gaussian
        return PoissonSampled(self.sampling_rate, gaussian)

    @property
    def event(self) -> Event:
        """What the whole round does to the data; this is what the ledger charges."""
        if self.mechanism in (Mechanism.WHOLE_UPDATE, Mechanism.LABELS):
            return self.step_event
        return Repeated(self.step_event, self.steps)

    @property
    def paid_once(self) -> bool:
        """Whether a run is charged in its first round alone: labels are drawn once and reused."""
        return self.mechanism is Mechanism.LABELS

    def over(self, rounds: int) -> Event:
        """What so many rounds like this do to the data."""
        return self.event if self.paid_once else Repeated(self.event, rounds)

    @property
    def flip_probability(self) -> float:
        """How often randomised response turns one of two labels into the other."""
        return 0.0 if self.keep_probability is None else (1 - self.keep_probability) / 2

    def select(self, units: int, stream: SecureStream) -> list[int]:
        """Positions of the units that join this step: an independent coin each (Poisson)."""
        return [int(i) for i in stream.bernoulli(units, self.sampling_rate).nonzero()[0]]

    def select_records(self, records: int, stream: SecureStream) -> list[int]:
        """Positions of one chosen unit's records that enter this step, ``max_records`` at most.

        Privacy: each unit's choice is its own, so no other unit's contribution depends on it.
        """
        return stream.subset(records, records if self.max_records is None else self.max_records)

    def clipped_sum(self, shapes: Mapping[str, torch.Size]) -> ClippedSum:
        """An empty sum to add this step's contributions to."""
        limit = math.inf if self.mode is Mode.NONE else self.clip_norm
        return ClippedSum(shapes, limit, self.unit, self.clip_rule)

    def loss_sum(self) -> ClippedSum | None:
        """An empty sum to add this step's losses to; None where they stay at home."""
        if self.losses is None:
            return None
        return ClippedSum({LOSS: torch.Size([])}, self.losses.largest, self.unit)

    def clip_update(self, update: Mapping[str, Tensor]) -> Clipped:
        """A whole round's change, clipped; for ``Mechanism.WHOLE_UPDATE``."""
        return clip_update(update, math.inf if self.mode is Mode.NONE else self.clip_norm)

    def clip_batch_gradient(
        self, gradient: Mapping[str, Tensor], groups: Mapping[str, str]
    ) -> Clipped:
        """A batch's mean gradient, clipped group by group; for ``Mechanism.RECONSTRUCTION``.

        Raises:
            ValueError: There are more groups than the plan accounts for.
        """
        count = len(set(groups.values()))
        bound("groups", count, count == self.groups, f"{self.groups}, as the plan accounts for")
        limit = math.inf if self.mode is Mode.NONE else self.clip_norm
        return clip_batch_gradient(gradient, groups, limit, self.unit)

    def privatise(self, clipped: Clipped, reservation: Reservation, stream: SecureStream) -> Noised:
        """The noised mean of one step: sum, noise, division by the public denominator.

        Privacy: costs ``step_event``, which ``reservation`` must have charged.

        Raises:
            ValueError: ``clipped`` has another unit or a larger bound than the plan.
        """
        self.require_bound(clipped, self.clip_norm)
        if self.mode is Mode.DISTRIBUTED:
            raise ValueError("mode is distributed; the noise of one share goes into a secure sum")
        if self.mode is Mode.NONE:
            noised = pass_unprotected(clipped, self.step_event, reservation)
        else:
            noised = add_gaussian(
                clipped,
                self.step_event,
                self.effective_multiplier,
                self.adjacency,
                reservation,
                stream,
            )
        return noised.then(self.divide)

    def divide(self, arrays: Arrays) -> Arrays:
        """The sum over units as a mean, by the public denominator."""
        return {name: total / self.expected_units for name, total in arrays.items()}

    def require_bound(self, clipped: Clipped, clip_norm: float) -> None:
        """Refuse a sum that was not clipped for this plan: its noise would be another's."""
        if clipped.unit is not self.unit:
            raise ValueError(f"the sum is over {clipped.unit}s; the plan protects a {self.unit}")
        if self.mode is Mode.NONE:
            return
        limit = clip_norm
        if self.mechanism is Mechanism.RECONSTRUCTION:
            limit *= self.noise_multiplier / self.effective_multiplier
        if not math.isclose(clipped.bound, limit, rel_tol=1e-12):
            raise ValueError(f"the sum's bound is {clipped.bound:g}; the plan's is {limit:g}")


def bound(name: str, value: object, holds: bool, what: str) -> None:
    """Raise ``ValueError`` naming field, value and bound unless it holds."""
    if not holds:
        raise ValueError(f"{name} is {value}; it must be {what}")
