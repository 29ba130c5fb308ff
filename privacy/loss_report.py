"""A hospital's mean loss, released beside its gradients with noise of its own, under one charge.

Losses on private records are a release like any other (law 1). Each unit's is cut to a public
bound, so their sum moves by no more than that; gradients and losses together are one Gaussian
mechanism that costs what the plan's noise multiplier says, and the gradients get slightly more
noise. Same accounting as the counts of adaptive clipping: Andrew et al. (2021), theorem 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from wardround.privacy.adaptive import remaining_multiplier

LOSS = "report/loss"  # what the mean loss is called beside the arrays of an update


@dataclass(frozen=True)
class LossReport:
    """``[privacy.losses]``: how the losses of a step are released.

    Attributes:
        largest: One unit's loss counts as this at most, and as minus this at least.
        noise_multiplier: Noise on the summed losses, in units of ``largest``.
    """

    largest: float
    noise_multiplier: float = 5.0

    def __post_init__(self) -> None:
        for name in ("largest", "noise_multiplier"):
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be greater than 0")

    def gradient_multiplier(self, noise_multiplier: float) -> float:
        """The noise multiplier left for the gradients, so that both cost ``noise_multiplier``.

        Raises:
            ValueError: The losses alone would cost more.
        """
        if self.noise_multiplier <= noise_multiplier:
            raise ValueError(
                f"losses.noise_multiplier is {self.noise_multiplier:g}; with noise_multiplier "
                f"{noise_multiplier:g} it must be greater than that"
            )
        return remaining_multiplier(noise_multiplier, self.noise_multiplier)
