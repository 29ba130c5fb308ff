"""Learning-rate schedules: a factor for each step, from public numbers alone.

Round, step and their totals are in the signed plan, so every hospital computes the same rate and
nothing about the data can be read from it. No factor is zero: a step of rate zero would leave the
model as it was. Source for warm-up and cosine: Loshchilov and Hutter (2017), "SGDR", equation 5,
without restarts. A constant warm-up before an unshortened fall is what Zhou et al. (2022), CoOp,
train with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum


class Shape(StrEnum):
    """How the rate falls after the warm-up."""

    CONSTANT = "constant"
    LINEAR = "linear"
    COSINE = "cosine"


class Per(StrEnum):
    """What a schedule counts."""

    STEP = "step"
    ROUND = "round"


@dataclass(frozen=True)
class Schedule:
    """``[training.schedule]``: the learning rate over the whole study.

    Attributes:
        shape: How the rate falls after the warm-up.
        per: Whether it changes with every step, or with every round.
        warmup: Steps, or rounds, over which it rises in equal parts.
        floor: Share of the rate that is left at the very end.
        warmup_share: Share of the rate that all of the warm-up has instead of rising; 0 to rise.
        whole: The fall is as slow as if there were no warm-up, and so does not reach its end.
    """

    shape: Shape = Shape.CONSTANT
    per: Per = Per.STEP
    warmup: int = 0
    floor: float = 0.0
    warmup_share: float = 0.0
    whole: bool = False

    def __post_init__(self) -> None:
        if self.warmup < 0:
            raise ValueError(f"warmup is {self.warmup}; it must be 0 or more")
        for name in ("floor", "warmup_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie in [0, 1]")

    def factor(self, round_number: int, rounds: int, step: int, steps: int) -> float:
        """What the learning rate is multiplied by; in (0, 1].

        Args:
            round_number: This round, from 1.
            rounds: Rounds of the study.
            step: This step of the round, from 1.
            steps: Steps of a round.

        >>> Schedule(Shape.COSINE, warmup=2).factor(1, 1, 1, 10)
        0.5
        """
        if self.per is Per.ROUND:
            step, steps = 1, 1
        done, total = (round_number - 1) * steps + step - 1, rounds * steps
        if done < self.warmup:
            return self.warmup_share or (done + 1) / self.warmup
        gone = (done - self.warmup) / (total if self.whole else total - self.warmup)
        left = {
            Shape.CONSTANT: 1.0,
            Shape.LINEAR: 1 - gone,
            Shape.COSINE: (1 + math.cos(math.pi * gone)) / 2,
        }[self.shape]
        return self.floor + (1 - self.floor) * left
