"""A round's clipping and noise, step by step: fixed by the plan, or following the noised counts.

The trainer asks ``start_session(plan)`` once a round and uses the same two methods either way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch

from wardround.privacy.adaptive import AdaptiveClip
from wardround.privacy.clipping import Clipped, ClippedSum
from wardround.privacy.loss_report import LossReport
from wardround.privacy.mechanisms import PrivacyPlan
from wardround.privacy.noise import Arrays, Noised, add_joint_gaussian
from wardround.privacy.reservation import Reservation
from wardround.privacy.stream import SecureStream


class Session(Protocol):
    """Clip and noise of one step after the other; a ``PrivacyPlan`` is one as it stands."""

    @property
    def noise_deviation(self) -> float:
        """Standard deviation of the noise on each number of the next mean; public."""

    def clipped_sum(self, shapes: Mapping[str, torch.Size]) -> ClippedSum:
        """An empty sum for the next step."""

    def loss_sum(self) -> ClippedSum | None:
        """An empty sum for the next step's losses; None where they stay at home."""

    def privatise(self, clipped: Clipped, reservation: Reservation, stream: SecureStream) -> Noised:
        """The noised mean of the step."""


class LossSession:
    """A session that releases the mean loss of each step too (``privacy.loss_report``)."""

    def __init__(self, plan: PrivacyPlan, losses: LossReport) -> None:
        self._plan = plan
        self._losses = losses
        self.noise_deviation = plan.noise_deviation
        self.clipped_sum = plan.clipped_sum
        self.loss_sum = plan.loss_sum

    def privatise(self, clipped: Clipped, reservation: Reservation, stream: SecureStream) -> Noised:
        """The noised mean gradient and, under ``LOSS``, the noised mean loss.

        Privacy: both together cost the plan's ``step_event``.

        Raises:
            ValueError: The losses are missing, or were cut to another bound.
        """
        plan, losses = self._plan, self._losses
        plan.require_bound(clipped, plan.clip_norm)
        told = clipped.losses
        if told is None or told.bound != losses.largest or told.unit is not plan.unit:
            raise ValueError("the losses of this step are missing or cut to another bound")
        parts = [
            (clipped, losses.gradient_multiplier(plan.noise_multiplier)),
            (told, losses.noise_multiplier),
        ]
        noised = add_joint_gaussian(
            parts, plan.step_event, plan.noise_multiplier, plan.adjacency, reservation, stream
        )
        return noised.then(plan.divide)


class AdaptiveSession:
    """A session whose clip norm follows a quantile of the norms (``privacy.adaptive``)."""

    def __init__(self, plan: PrivacyPlan, adaptive: AdaptiveClip) -> None:
        self._plan = plan
        self._adaptive = adaptive
        self.clip_norm = plan.clip_norm

    @property
    def noise_deviation(self) -> float:
        """From this step's clip norm, which follows from noised counts."""
        multiplier = self._adaptive.gradient_multiplier(self._plan.noise_multiplier)
        return multiplier * self.clip_norm / self._plan.expected_units

    def clipped_sum(self, shapes: Mapping[str, torch.Size]) -> ClippedSum:
        """An empty sum with the clip norm of this step."""
        return ClippedSum(shapes, self.clip_norm, self._plan.unit, self._plan.clip_rule)

    def loss_sum(self) -> ClippedSum | None:
        """Losses stay at home."""
        return None

    def privatise(self, clipped: Clipped, reservation: Reservation, stream: SecureStream) -> Noised:
        """The noised mean; the clip norm of the next step follows from its noised count.

        Privacy: sum and count together cost the plan's ``step_event``.
        """
        plan, adaptive = self._plan, self._adaptive
        plan.require_bound(clipped, self.clip_norm)
        parts = [
            (clipped, adaptive.gradient_multiplier(plan.noise_multiplier)),
            (clipped.within_sum(), adaptive.count_multiplier),
        ]
        noised = add_joint_gaussian(
            parts, plan.step_event, plan.noise_multiplier, plan.adjacency, reservation, stream
        )
        within = float(noised.value["within"])
        self.clip_norm = adaptive.next_clip_norm(self.clip_norm, within, plan.expected_units)
        return noised.then(self._mean)

    def _mean(self, arrays: Arrays) -> Arrays:
        """The sum without the count, divided by the public denominator."""
        return self._plan.divide({name: a for name, a in arrays.items() if name != "within"})


def start_session(plan: PrivacyPlan) -> Session:
    """The session of one round under ``plan``."""
    if plan.losses is not None:
        return LossSession(plan, plan.losses)
    return plan if plan.adaptive is None else AdaptiveSession(plan, plan.adaptive)
