"""The geometric median: the point whose distances to all changes have the least sum.

Found by the smoothed Weiszfeld iteration, which only needs the inner products of the changes. With
a share alpha < 1/2 of malicious changes, and honest ones within a distance R of a point, the result
lies within ``(1 - alpha) / sqrt(1 - 2 alpha) * R`` of it. Without malicious changes it is close to
the mean, and noise that is the same for everybody makes all distances alike, which makes it the
mean: that is why it costs little under privacy and why it does not help much there either.

Sources: Pillutla, Kakade and Harchaoui (2022), "Robust aggregation for federated learning" (RFA),
algorithm 2; Minsker (2015), "Geometric median and robust estimation in Banach spaces", lemma 2.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from wardround.strategies.base import Arrays
from wardround.strategies.robust.base import (
    Combination,
    gram_matrix,
    require_enough,
    squared_distances,
    weighted_sum,
)

_SMOOTHING = (
    1e-6  # distances count as at least this share of a typical one (RFA's nu, made relative)
)
_MOVED = 1e-12  # change of the weights at which the iteration has converged
_ITERATIONS = 1000


@dataclass(frozen=True)
class GeometricMedian:
    """The geometric median of the changes, all arrays together as one vector.

    Attributes:
        malicious: How many hospitals may send anything at all.
    """

    malicious: int = 1
    name: ClassVar[str] = "geometric-median"

    @property
    def least(self) -> int:
        """More than twice as many as are malicious."""
        return 2 * self.malicious + 1

    def combine(self, changes: Sequence[Arrays]) -> Combination:
        """A weighted mean whose weights fall with the distance from it."""
        require_enough(self, changes)
        return weighted_sum(changes, weiszfeld_weights(gram_matrix(changes)))


def weiszfeld_weights(gram: Tensor) -> Tensor:
    """Weights that add up to 1 and whose weighted mean is the smoothed geometric median.

    Args:
        gram: Inner products of the points, float64, shape ``(points, points)``; the origin does not
            matter.
    """
    distances = squared_distances(gram).sqrt()
    middling = _majority_distance(distances)
    typical = float(_majority_distance(middling[None, :]))
    if typical == 0:
        shared = distances[middling.argmin()] == 0
        return shared.double() / shared.sum()
    least = _SMOOTHING * typical
    # Not from the mean: from there a point at 1e20 would cost all other distances their digits.
    weights = _normalised(1 / middling.clamp(min=least))
    for _ in range(_ITERATIONS):
        pulled = gram @ weights
        squares = gram.diagonal() - 2 * pulled + weights @ pulled
        moved = _normalised(1 / squares.clamp(min=0).sqrt().clamp(min=least))
        done = bool((moved - weights).abs().max() < _MOVED)
        weights = moved
        if done:
            break
    return weights


def _majority_distance(distances: Tensor) -> Tensor:
    """In each row, the least distance that more than half of the values do not exceed.

    A minority cannot stretch it, neither as rows nor as values in a row.
    """
    return distances.kthvalue(distances.shape[1] // 2 + 1, dim=1).values


def _normalised(weights: Tensor) -> Tensor:
    """The weights, adding up to 1."""
    return weights / weights.sum()
