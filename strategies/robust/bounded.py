"""The norm-bounded mean: changes longer than a bound are cut to it, then the mean is taken.

Whatever one of n hospitals sends moves the result by at most bound / n; that ends the advantage of
a hospital that multiplies its change (model replacement), and nothing more: a malicious change of
ordinary length counts like any other. Sources: Sun, Kairouz, Suresh and McMahan (2019), "Can you
really backdoor federated learning?", section 4; Bagdasaryan et al. (2020) for the attack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from wardround.strategies.base import Arrays
from wardround.strategies.robust.base import Combination, require_enough, stacked, weighted_sum

_SLACK = 1.1  # over the median length, so that ordinary changes pass as they are


@dataclass(frozen=True)
class NormBoundedMean:
    """The mean of the changes, none longer than the bound, all arrays together as one vector.

    Attributes:
        malicious: How many hospitals may send anything at all.
        norm_bound: Longest change that counts in full, or None for 1.1 times the round's median
            length, which a minority cannot stretch.
    """

    malicious: int = 1
    norm_bound: float | None = None
    name: ClassVar[str] = "norm-bounded-mean"

    def __post_init__(self) -> None:
        if self.norm_bound is not None and not self.norm_bound > 0:
            raise ValueError(f"norm_bound is {self.norm_bound}; it must be greater than 0")

    @property
    def least(self) -> int:
        """More than twice as many as are malicious, unless the bound is given."""
        return 1 if self.norm_bound is not None else 2 * self.malicious + 1

    def combine(self, changes: Sequence[Arrays]) -> Combination:
        """The mean after cutting."""
        require_enough(self, changes)
        norms = sum(stacked(changes, name).square().sum(1) for name in changes[0])
        assert isinstance(norms, Tensor)
        norms = norms.sqrt()
        limit = self.norm_bound or _SLACK * float(norms.quantile(0.5))
        factors = (limit / norms.clamp(min=limit)) if limit else (norms == 0).double()
        return weighted_sum(changes, factors / len(changes))
