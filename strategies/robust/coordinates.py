"""Number by number: the median, and the mean of what is left when both ends are cut off.

With at most f malicious changes among more than 2f, every number of the result lies between the
smallest and the largest honest one. Under noise both throw honest answers away: a median of n
normal numbers varies up to pi/2 times as much as their mean. Source: Yin, Chen, Ramchandran and
Bartlett (2018), "Byzantine-robust distributed learning", options I and II.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from wardround.strategies.base import Arrays
from wardround.strategies.robust.base import Combination, require_enough, stacked


@dataclass(frozen=True)
class TrimmedMean:
    """The mean of each number without its ``malicious`` largest and smallest values.

    Attributes:
        malicious: How many hospitals may send anything at all.
    """

    malicious: int = 1
    name: ClassVar[str] = "trimmed-mean"

    @property
    def least(self) -> int:
        """More than twice as many as are malicious."""
        return 2 * self.malicious + 1

    def combine(self, changes: Sequence[Arrays]) -> Combination:
        """The trimmed mean of every number; exact whatever the order."""
        require_enough(self, changes)
        kept = slice(self.malicious, len(changes) - self.malicious)
        return _by_number(changes, lambda ordered: ordered[kept].mean(0))


@dataclass(frozen=True)
class Median:
    """The median of each number; of an even count, the middle of the two in the middle.

    Attributes:
        malicious: How many hospitals may send anything at all.
    """

    malicious: int = 1
    name: ClassVar[str] = "median"

    @property
    def least(self) -> int:
        """More than twice as many as are malicious."""
        return 2 * self.malicious + 1

    def combine(self, changes: Sequence[Arrays]) -> Combination:
        """The median of every number."""
        require_enough(self, changes)
        count = len(changes)
        middle = slice((count - 1) // 2, count // 2 + 1)
        return _by_number(changes, lambda ordered: ordered[middle].mean(0))


def _by_number(changes: Sequence[Arrays], pick: Callable[[Tensor], Tensor]) -> Combination:
    """``pick`` of every array's values in ascending order over the changes."""
    return Combination(
        {
            name: pick(stacked(changes, name).sort(0).values).view(array.shape)
            for name, array in changes[0].items()
        },
        None,
    )
