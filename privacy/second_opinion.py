"""Second opinions: the same events, asked of other people's accountants.

RDP and PLD by google's dp-accounting, PRV by Opacus. A report quotes them beside its own figure.
The Gaussian-DP approximation is refused by name: it falls below the true value in most settings
(1.71 against 3.15 in one row of the tests' table). Imports the libraries only when asked.
Sources: Mironov (2017); Gopi, Lee and Wutschitz (2021).
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from wardround.privacy.accountant import REPORT_GRID, epsilon
from wardround.privacy.errors import BadInput
from wardround.privacy.events import (
    Event,
    Gaussian,
    PoissonSampled,
    Primitive,
    RandomisedResponse,
    is_protected,
    primitive_counts,
)
from wardround.privacy.tables import nearest

PRV_LEAST_MULTIPLIER = 0.4  # below, Opacus' accountant takes minutes


def library_epsilon(event: Event, delta: float) -> float:
    """Epsilon by dp-accounting's PLD accountant, on the reporting grid; slower than ours."""
    from dp_accounting.pld import PLDAccountant

    return _google(PLDAccountant(value_discretization_interval=REPORT_GRID), event, delta)


def rdp_epsilon(event: Event, delta: float) -> float:
    """Epsilon by Rényi differential privacy, dp-accounting's orders: an upper bound."""
    from dp_accounting.rdp import RdpAccountant

    return _google(RdpAccountant(), event, delta)


def prv_epsilon(event: Event, delta: float) -> float:
    """Epsilon by Opacus' privacy-random-variable accountant, within 0.01 of the exact value.

    Raises:
        ValueError: An event it does not know, or so little noise that it would take minutes.
    """
    from opacus.accountants import PRVAccountant

    if not is_protected(event):
        return math.inf
    history = []
    for part, count in primitive_counts(event).items():
        if isinstance(part, Gaussian):
            part = PoissonSampled(1.0, part)
        if not isinstance(part, PoissonSampled):
            raise ValueError(f"PRV cannot account for {part}")
        if part.event.noise_multiplier < PRV_LEAST_MULTIPLIER:
            raise ValueError(f"PRV takes too long below noise multiplier {PRV_LEAST_MULTIPLIER}")
        if part.sampling_rate > 0:
            history.append((part.event.noise_multiplier, part.sampling_rate, count))
    if not history:
        return 0.0
    accountant = PRVAccountant()
    accountant.history = history
    # It takes logarithms of 0 at the ends of its grid, on purpose and with the right outcome.
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(accountant.get_epsilon(delta=delta))


OPINIONS: dict[str, Callable[[Event, float], float]] = {
    "pld": epsilon,
    "pld-library": library_epsilon,
    "rdp": rdp_epsilon,
    "prv": prv_epsilon,
}


def epsilon_by(accountant: str, event: Event, delta: float) -> float:
    """Epsilon by the accountant of this name.

    Raises:
        BadInput: An unknown accountant, or the Gaussian-DP approximation.
    """
    if accountant == "gdp":
        raise BadInput(
            "accountant gdp: the Gaussian-DP approximation reports less than was spent; use pld"
        )
    if accountant not in OPINIONS:
        raise BadInput(f"accountant {accountant!r}: unknown{nearest(accountant, list(OPINIONS))}")
    return OPINIONS[accountant](event, delta)


def _google(accountant: Any, event: Event, delta: float) -> float:
    """Feed every primitive to one of dp-accounting's accountants."""
    if not is_protected(event):
        return math.inf
    counts = {
        part: count
        for part, count in primitive_counts(event).items()
        if not (isinstance(part, PoissonSampled) and part.sampling_rate == 0)
    }
    if not counts:
        return 0.0
    # Its advice on which Rényi orders to widen is not for whoever reads our log. Neither is that an
    # order's series did not converge: it takes that order's divergence for infinite, so the least
    # over the others is still an upper bound.
    level = logging.getLogger("absl").level
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        for part, count in counts.items():
            accountant.compose(_translate(part), count)
        return float(accountant.get_epsilon(delta))
    finally:
        logging.getLogger("absl").setLevel(level)


def _translate(part: Primitive) -> Any:
    """The dp_accounting event."""
    import dp_accounting as library

    match part:
        case Gaussian(noise_multiplier):
            return library.GaussianDpEvent(noise_multiplier)
        case PoissonSampled(sampling_rate, Gaussian(noise_multiplier)):
            gaussian = library.GaussianDpEvent(noise_multiplier)
            return (
                library.PoissonSampledDpEvent(sampling_rate, gaussian)
                if sampling_rate < 1
                else gaussian
            )
        case RandomisedResponse():
            raise ValueError("dp-accounting does not compose labels with add/remove events")
    raise TypeError(f"no accounting rule for {part}")
