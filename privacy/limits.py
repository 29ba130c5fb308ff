"""The most any attack can reach against Gaussian noise, in closed form.

Many steps of Gaussian noise on the whole data set tell no more than one look at a normal number
whose mean moves by ``mu`` deviations when one unit joins: mu = sqrt(steps) / noise_multiplier
(Dong, Roth and Su 2022, "Gaussian differential privacy", corollary 3.3). Exact for noise on the
whole data set, as the experiments beside this file use it; with Poisson sampling it is not, and is
refused by never being offered. Knows nothing of the attacks.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import log_ndtr, ndtr, ndtri


def gaussian_mu(noise_multiplier: float, steps: int = 1, copies: int = 1) -> float:
    """How far ``copies`` units move the outcome, in deviations; infinite without noise."""
    if noise_multiplier == 0:
        return math.inf
    return copies * math.sqrt(steps) / noise_multiplier


def mu_of_epsilon(epsilon: float, delta: float) -> float:
    """The ``mu`` whose Gaussian mechanism is exactly (epsilon, delta)-private.

    Source: Balle and Wang (2018), theorem 8: delta = Phi(mu/2 - epsilon/mu) - e^epsilon
    Phi(-mu/2 - epsilon/mu), which grows with mu.
    """
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise ValueError(f"epsilon is {epsilon}; it must be finite and greater than 0")
    if not 0 < delta < 1:
        raise ValueError(f"delta is {delta}; it must lie strictly between 0 and 1")
    low, high = 0.0, 2 * math.sqrt(2 * epsilon) + 80.0
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        if _delta(epsilon, middle) > delta:
            high = middle
        else:
            low = middle
    return low


def _delta(epsilon: float, mu: float) -> float:
    """Delta of a Gaussian mechanism at this epsilon."""
    first = float(ndtr(mu / 2 - epsilon / mu))
    return first - math.exp(epsilon + float(log_ndtr(-mu / 2 - epsilon / mu)))


def most_true_positives(false_positives: float, mu: float) -> float:
    """The highest true-positive rate of any test with this false-positive rate.

    >>> round(most_true_positives(0.01, 1.0), 4)
    0.0924
    """
    if not 0 < false_positives < 1:
        raise ValueError(
            f"false_positives is {false_positives}; it must lie strictly between 0 and 1"
        )
    return float(ndtr(ndtri(false_positives) + mu))


def most_area(mu: float) -> float:
    """The highest area under the curve of any attack on membership: Phi(mu / sqrt 2).

    >>> round(most_area(0.5), 4)
    0.6382
    """
    return float(ndtr(mu / math.sqrt(2)))


def most_exposure(candidates: int, mu: float) -> float:
    """The highest mean exposure, in bits, of a secret drawn uniformly from ``candidates``.

    To name it among the first k is a test of whether it was there at all, with false-positive rate
    k / candidates, because without it every rank is as likely as the next.
    """
    ranks = np.arange(1, candidates + 1)
    among_first = ndtr(ndtri(ranks / candidates) + mu) if math.isfinite(mu) else np.ones(candidates)
    at_rank = np.diff(among_first, prepend=0.0)
    return math.log2(candidates) - float((at_rank * np.log2(ranks)).sum())
