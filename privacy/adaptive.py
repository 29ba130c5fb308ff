"""Adaptive clipping: the clip norm follows a quantile of the norms, and its count is paid for.

Each step releases, beside the clipped sum, how many units were short enough, with noise of its own.
Both together cost what the plan's noise multiplier says, so the gradient gets slightly more noise.
The next clip norm is computed from noised counts alone. Source: Andrew et al. (2021),
"Differentially private learning with adaptive clipping", algorithm 1 and theorem 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


def remaining_multiplier(whole: float, spent: float) -> float:
    """The noise multiplier left for the rest when one part of a Gaussian release has ``spent``.

    >>> remaining_multiplier(0.6, 0.75)
    1.0
    """
    return float((whole**-2 - spent**-2) ** -0.5)


@dataclass(frozen=True)
class AdaptiveClip:
    """How the clip norm moves.

    Attributes:
        target_quantile: Share of units that should be short enough not to be clipped.
        learning_rate: How fast the clip norm follows, on a logarithmic scale.
        count_noise: Standard deviation of the noise on the number of short enough units.
    """

    target_quantile: float = 0.5
    learning_rate: float = 0.2
    count_noise: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.target_quantile < 1:
            raise ValueError(f"target_quantile is {self.target_quantile}; it must lie in (0, 1)")
        for name in ("learning_rate", "count_noise"):
            if not (getattr(self, name) > 0 and math.isfinite(getattr(self, name))):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be greater than 0")

    @property
    def count_multiplier(self) -> float:
        """The count's noise multiplier: it moves by 1/2 when a unit comes or goes."""
        return 2 * self.count_noise

    def gradient_multiplier(self, noise_multiplier: float) -> float:
        """The noise multiplier left for the gradient, so that both cost ``noise_multiplier``.

        Raises:
            ValueError: The count alone would cost more.
        """
        if self.count_multiplier <= noise_multiplier:
            raise ValueError(
                f"count_noise is {self.count_noise:g}; with noise_multiplier {noise_multiplier:g} "
                f"it must be greater than {noise_multiplier / 2:g}"
            )
        return remaining_multiplier(noise_multiplier, self.count_multiplier)

    def next_clip_norm(
        self, clip_norm: float, noised_within: float, expected_units: float
    ) -> float:
        """The clip norm of the next step, from public values alone.

        Args:
            clip_norm: This step's.
            noised_within: Noised sum of +1/2 for each short enough unit and -1/2 for the others.
            expected_units: The public denominator.
        """
        share = 0.5 + noised_within / expected_units
        share = min(1.0, max(0.0, share))
        return clip_norm * math.exp(-self.learning_rate * (share - self.target_quantile))
