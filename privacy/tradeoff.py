"""What an attacker can reach: epsilon and delta translated into error rates of the best attack.

Membership inference decides whether one person's data were used. Among all attacks, however clever
and whatever they know beside, none beats the trade-off curve of the privacy-loss distribution. All
figures here are upper bounds for any attack on the released values. Knows nothing of attacks.
Sources: Wasserman and Zhou (2010); Kairouz, Oh and Viswanath (2015), theorem 2.1, for the region of
error rates; Dong, Roth and Su (2022) for the curve.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.privacy.accountant import SEARCH_GRID, Accountant
from wardround.privacy.events import Event

FALSE_POSITIVE_RATES = (0.001, 0.01, 0.1)
CURVE_DELTAS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
PERSONS = (1, 2, 5, 10)

_POINTS = 1000
_BEYOND = 1e-10  # delta at which the curve is followed no further
_FARTHEST = 50.0  # nor beyond this epsilon

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TradeOff:
    """The (epsilon, delta) curve of an event, for a person with some number of records.

    Attributes:
        epsilons: Ascending, from 0; empty where nothing is protected.
        deltas: The least delta for each.
    """

    epsilons: Array
    deltas: Array

    def most_true_positives(self, false_positives: float) -> float:
        """The highest true-positive rate of any membership test with this false-positive rate."""
        if not 0 < false_positives <= 1:
            raise ValueError(f"false_positives is {false_positives}; it must lie in (0, 1]")
        if not len(self.epsilons):
            return 1.0
        growth = np.exp(self.epsilons)
        one = growth * false_positives + self.deltas
        other = 1 - (1 - self.deltas - false_positives) / growth
        return min(1.0, float(np.min(one)), float(np.min(other)))

    def most_area(self) -> float:
        """The highest area under the curve of any membership test; 0.5 is guessing."""
        # The curve rises, so rectangles up to their right end never come out too small.
        rates = np.concatenate([np.geomspace(1e-9, 1e-2, 300), np.linspace(1e-2, 1, 1000)[1:]])
        heights = np.array([self.most_true_positives(float(rate)) for rate in rates])
        widths = np.diff(rates, prepend=0.0)
        return min(1.0, float(heights @ widths))


@dataclass(frozen=True)
class RiskFigures:
    """What an event means for the people in the data.

    Attributes:
        delta: What the epsilons of persons are computed at.
        curve: Pairs of delta and epsilon; epsilon is None where nothing is protected.
        true_positives: For each false-positive rate, the most any attack reaches.
        area: The largest area under the curve of any attack.
        persons: For a person with so many units in the data: epsilon, and the most true positives
            at 1 % false positives.
    """

    delta: float
    curve: tuple[tuple[float, float | None], ...]
    true_positives: tuple[tuple[float, float], ...]
    area: float
    persons: tuple[tuple[int, float | None, float], ...]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "delta": self.delta,
            "curve": [{"delta": d, "epsilon": e} for d, e in self.curve],
            "most_true_positives": [
                {"false_positives": false, "true_positives": true}
                for false, true in self.true_positives
            ],
            "most_area_under_curve": self.area,
            "persons": [
                {"records": records, "epsilon": epsilon, "most_true_positives_at_1_percent": rate}
                for records, epsilon, rate in self.persons
            ],
        }


def trade_off(event: Event, records: int = 1) -> TradeOff:
    """The curve of ``event`` for a person with ``records`` units; pessimistic, grid 1e-3."""
    loss = Accountant(SEARCH_GRID, records).loss(event)
    if loss is None:
        return TradeOff(np.empty(0), np.empty(0))
    farthest = min(float(loss.get_epsilon_for_delta(_BEYOND)), _FARTHEST)
    epsilons = np.linspace(0.0, farthest, _POINTS)
    deltas = np.asarray(loss.get_delta_for_epsilon(epsilons))
    return TradeOff(epsilons, np.clip(deltas, 0.0, 1.0))


@lru_cache(maxsize=64)
def risk_figures(event: Event, delta: float, persons: tuple[int, ...] = PERSONS) -> RiskFigures:
    """The figures a data protection officer is shown for ``event``."""
    curve = trade_off(event)
    accountant = Accountant(SEARCH_GRID)
    rows = []
    for records in persons:
        theirs = curve if records == 1 else trade_off(event, records)
        epsilon = Accountant(SEARCH_GRID, records).epsilon(event, delta)
        rows.append((records, _finite(epsilon), theirs.most_true_positives(0.01)))
    return RiskFigures(
        delta=delta,
        curve=tuple((d, _finite(accountant.epsilon(event, d))) for d in CURVE_DELTAS),
        true_positives=tuple((r, curve.most_true_positives(r)) for r in FALSE_POSITIVE_RATES),
        area=curve.most_area(),
        persons=tuple(rows),
    )


def _finite(value: float) -> float | None:
    """JSON knows no infinity."""
    return value if math.isfinite(value) else None
