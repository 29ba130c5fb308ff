"""The accountant: epsilon from a list of events, by privacy-loss distributions (PLD).

What is reported is always composed from events and never added up from epsilons. An event the
accountant cannot interpret raises; nothing is rounded down.
Source: Koskela et al. (2020), Doroshenko et al. (2022) through google's ``dp_accounting``.
"""

from __future__ import annotations

import math
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from wardround.privacy.events import (
    Event,
    Gaussian,
    PoissonSampled,
    Repeated,
    is_protected,
    primitive_counts,
)

REPORT_GRID = 1e-4
SEARCH_GRID = 1e-3


def accountant_name() -> str:
    """Name and version of what computes epsilon, for reports."""
    return f"PLD, dp-accounting {version('dp-accounting')}, grid {REPORT_GRID:g}"


def epsilon(event: Event, delta: float) -> float:
    """The smallest epsilon such that ``event`` is (epsilon, delta)-DP, add/remove one unit.

    Infinite where data was used unprotected.

    Raises:
        ValueError: ``delta`` outside (0, 1).
    """
    if not 0 < delta < 1:
        raise ValueError(f"delta is {delta}; it must lie strictly between 0 and 1")
    if not is_protected(event):
        return math.inf
    return _epsilon(frozenset(primitive_counts(event).items()), delta, REPORT_GRID)


def calibrate_noise_multiplier(
    target_epsilon: float, delta: float, sampling_rate: float, steps: int
) -> float:
    """The least noise multiplier (to 4 digits) that keeps ``steps`` steps within the target.

    The answer is checked on the reporting grid, so the epsilon reported for the whole study never
    exceeds the target.

    Raises:
        ValueError: The target or another argument is out of range.
    """
    if not (target_epsilon > 0 and math.isfinite(target_epsilon)):
        raise ValueError(f"epsilon is {target_epsilon}; it must be greater than 0")
    # From above: tiny multipliers make the loss distribution, and the time to compute it, huge.
    high = 16.0
    while _planned(high, delta, sampling_rate, steps, SEARCH_GRID) > target_epsilon:
        high *= 4
        if high > 1e6:
            raise ValueError(f"epsilon {target_epsilon} is out of reach at delta {delta}")
    low = high / 2
    while _planned(low, delta, sampling_rate, steps, SEARCH_GRID) <= target_epsilon:
        low, high = low / 2, low
    while high / low > 1 + 1e-4:
        middle = math.sqrt(low * high)
        if _planned(middle, delta, sampling_rate, steps, SEARCH_GRID) > target_epsilon:
            low = middle
        else:
            high = middle
    multiplier = math.ceil(high * 1e4) / 1e4
    while _planned(multiplier, delta, sampling_rate, steps, REPORT_GRID) > target_epsilon:
        multiplier = math.ceil(multiplier * 1e4 + 1) / 1e4
    return multiplier


def _planned(
    noise_multiplier: float, delta: float, sampling_rate: float, steps: int, grid: float
) -> float:
    """Epsilon of a planned study of equal steps."""
    event = Repeated(PoissonSampled(sampling_rate, Gaussian(noise_multiplier)), steps)
    return _epsilon(frozenset(primitive_counts(event).items()), delta, grid)


@lru_cache(maxsize=4096)
def _epsilon(counts: frozenset[tuple[Event, int]], delta: float, grid: float) -> float:
    """Epsilon of a multiset of primitive events; order does not matter to composition."""
    from dp_accounting import NeighboringRelation
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(
        NeighboringRelation.ADD_OR_REMOVE_ONE, value_discretization_interval=grid
    )
    spent = False
    for event, count in sorted(counts, key=repr):
        interpreted = _interpret(event)
        if interpreted is not None and count:
            accountant.compose(interpreted, count)
            spent = True
    return float(accountant.get_epsilon(delta)) if spent else 0.0


def _interpret(event: Event) -> Any:
    """The dp_accounting event, or None where nothing can be learnt (sampling rate 0)."""
    import dp_accounting as library

    match event:
        case Gaussian(noise_multiplier):
            return library.GaussianDpEvent(noise_multiplier)
        case PoissonSampled(sampling_rate, inner):
            if sampling_rate == 0:
                return None
            gaussian = library.GaussianDpEvent(inner.noise_multiplier)
            if sampling_rate == 1:
                return gaussian
            return library.PoissonSampledDpEvent(sampling_rate, gaussian)
    raise TypeError(f"no accounting rule for {event}")
