"""Several sites' duels as one: whose voice counts how much is a choice of its own.

Three policies are common and can elect different winners, so a report names all three. Knows
nothing of how a site's duels were counted or noised; how many voters a site declares is public.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from wardround.strategies.choice.ballots import Floats
from wardround.strategies.choice.pairwise import margins


class Weighting(StrEnum):
    """What one site's duels are divided by before they are added up."""

    VOTER = "voter"  # by 1: every voter counts the same
    SITE = "site"  # by its voters: every site counts the same
    SQUARE_ROOT = "square-root"  # by the root of its voters: in between (Penrose 1946)


@dataclass(frozen=True, eq=False)
class Site:
    """One site's duels over an agenda.

    Attributes:
        name: The site.
        wins: Shape ``(candidates, candidates)``; entry (i, j): how many rank i above j.
        voters: How many voters the site declares.
        deviation: Standard deviation of the noise on one of its margins; 0 for none.
    """

    name: str
    wins: Floats
    voters: float
    deviation: float = 0.0

    def __post_init__(self) -> None:
        margins(self.wins)
        if not 0 < self.voters < math.inf:
            raise ValueError(f"{self.name}: voters is {self.voters}; it must be greater than 0")
        if not 0 <= self.deviation < math.inf:
            raise ValueError(f"{self.name}: deviation is {self.deviation}; it must be 0 or more")

    def weight(self, weighting: Weighting) -> float:
        """What its duels are multiplied by."""
        if weighting is Weighting.VOTER:
            return 1.0
        return 1 / (self.voters if weighting is Weighting.SITE else math.sqrt(self.voters))


def add_up(sites: Sequence[Site], weighting: Weighting) -> tuple[Floats, float]:
    """The weighted duels of all sites, and the noise's standard deviation on one margin.

    Raises:
        ValueError: There is no site, or they differ in the number of candidates.
    """
    if len({site.wins.shape for site in sites}) != 1:
        raise ValueError("sites to add up must share one number of candidates")
    weights = [site.weight(weighting) for site in sites]
    wins: Floats = np.sum([w * site.wins for w, site in zip(weights, sites, strict=True)], axis=0)
    variance = sum((w * site.deviation) ** 2 for w, site in zip(weights, sites, strict=True))
    return wins, math.sqrt(variance)


def unanimous(order: Sequence[int], voters: float) -> Floats:
    """The duels of ``voters`` people who all rank the candidates in this order."""
    place = np.argsort(np.array(order))
    wins: Floats = voters * (place[:, None] < place[None, :]).astype(np.float64)
    return wins


def by_name(sites: Sequence[Site]) -> Mapping[str, Site]:
    """Sites by their name; ``ValueError`` when one comes twice."""
    named = {site.name: site for site in sites}
    if len(named) != len(sites):
        raise ValueError("a site may submit once to an agenda")
    return named
