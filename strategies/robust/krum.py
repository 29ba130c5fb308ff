"""Krum: the change that is nearest to its nearest others; multi-Krum: the mean of several such.

With at most f malicious among n >= 2f + 3, what Krum picks lies within
``sqrt((n - f - 2) / (n - 2f - 1))`` honest diameters of an honest change. It averages nothing, so
noise passes in full: under privacy it is the worst of the rules, multi-Krum less so.
Source: Blanchard, El Mhamdi, Guerraoui and Stainer (2017), "Machine learning with adversaries",
sections 4 and 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from wardround.strategies.base import Arrays
from wardround.strategies.robust.base import (
    Combination,
    gram_matrix,
    require_enough,
    squared_distances,
    weighted_sum,
)


@dataclass(frozen=True)
class Krum:
    """The one change with the lowest score.

    Attributes:
        malicious: How many hospitals may send anything at all.
    """

    malicious: int = 1
    name: ClassVar[str] = "krum"

    @property
    def least(self) -> int:
        """The paper's 2f + 3."""
        return 2 * self.malicious + 3

    def combine(self, changes: Sequence[Arrays]) -> Combination:
        """A single hospital's change."""
        require_enough(self, changes)
        return weighted_sum(changes, _mean_of_best(changes, self.malicious, 1))


@dataclass(frozen=True)
class MultiKrum:
    """The mean of the changes with the lowest scores, all but ``malicious`` of them.

    Attributes:
        malicious: How many hospitals may send anything at all.
    """

    malicious: int = 1
    name: ClassVar[str] = "multi-krum"

    @property
    def least(self) -> int:
        """The paper's 2f + 3."""
        return 2 * self.malicious + 3

    def combine(self, changes: Sequence[Arrays]) -> Combination:
        """The mean of the selected changes."""
        require_enough(self, changes)
        selected = len(changes) - self.malicious
        return weighted_sum(changes, _mean_of_best(changes, self.malicious, selected))


def krum_scores(gram: Tensor, malicious: int) -> Tensor:
    """Each point's sum of squared distances to its ``n - malicious - 2`` nearest others."""
    count = len(gram)
    others = squared_distances(gram).fill_diagonal_(torch.inf)
    return others.sort(1).values[:, : count - malicious - 2].sum(1)


def _mean_of_best(changes: Sequence[Arrays], malicious: int, selected: int) -> Tensor:
    """Equal weights on the changes with the lowest scores."""
    scores = krum_scores(gram_matrix(changes), malicious)
    weights = torch.zeros(len(changes), dtype=torch.float64)
    weights[scores.argsort(stable=True)[:selected]] = 1 / selected
    return weights
