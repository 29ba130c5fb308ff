"""Privacy-loss distributions of single mechanisms, as dp-accounting's objects but built quickly.

A loss is the log-likelihood ratio an observer gains between two neighbouring data sets. This
module computes, for all points of a grid at once, the divergence a Poisson-sampled Gaussian has
there; dp-accounting turns it into a distribution, composes it and reads epsilon off. The library's
own constructor gives the same distribution (tests hold both to 1e-6 in epsilon) up to ten times
slower, because it asks point by point, and so does its way of reading epsilon off. Every rounding
is pessimistic. Knows nothing of events.

Sources: Doroshenko et al. (2022), "Connect the dots", algorithm 1, for the grid; Koskela et al.
(2020); Balle and Wang (2018), theorem 8, for a Gaussian nobody sampled for; Ganesh (2024), "Tight
group-level DP guarantees for DP-SGD", for several records of one person.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, log_ndtr, logsumexp, ndtr, ndtri

Array = NDArray[np.float64]
Loss: TypeAlias = Any  # dp_accounting.pld.privacy_loss_distribution.PrivacyLossDistribution

MOST_POINTS = 2**23  # beyond, epsilon is called infinite instead of filling the memory
_NOISE_TAIL = float(-ndtri(0.5 * math.exp(-50)))  # deviations of noise looked at, as the library's
_TABLE_POINTS = 4096
_NEWTON_STEPS = 4
_HALVINGS = 60
_SLACK = 1e-9


def gaussian_loss(
    noise_multiplier: float, sampling_rate: float, grid: float, records: int = 1
) -> Loss | None:
    """The loss of a Gaussian sum over a Poisson sample, for a person with ``records`` units in it.

    Args:
        noise_multiplier: Noise standard deviation in units of the sensitivity.
        sampling_rate: Chance of each unit to be in the sample, above 0.
        grid: Distance of neighbouring losses.
        records: How many units the neighbours differ by; each joins the sample on its own.

    Returns:
        None where the noise is so small that the distribution would not fit into memory.
    """
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

    if sampling_rate == 1:
        shifts, weights = np.array([float(records)]), np.zeros(1)
    else:
        shifts = np.arange(records + 1.0)
        weights = _log_binomial(records, shifts, sampling_rate)
    pair = _Pair(noise_multiplier, shifts, weights)
    if pair.reach() > MOST_POINTS * grid:
        return None
    if sampling_rate == 1:
        return PrivacyLossDistribution(pair.pmf(grid, remove=True))
    return PrivacyLossDistribution(pair.pmf(grid, remove=True), pair.pmf(grid, remove=False))


def gaussian_epsilon(mean: float, delta: float) -> float:
    """The exact epsilon of Gaussian noise on a sum, and a little more than floats may be off by.

    Args:
        mean: How far the sum moves, in standard deviations of the noise; for several releases the
            root of the sum of squares.
        delta: What epsilon is computed at.
    """
    if mean == 0 or _gaussian_delta(mean, 0.0) <= delta:
        return 0.0
    low, high = 0.0, mean**2 / 2 - mean * float(ndtri(delta))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _gaussian_delta(mean, middle) > delta:
            low = middle
        else:
            high = middle
    return high + _SLACK


def _gaussian_delta(mean: float, epsilon: float) -> float:
    """The least delta that goes with this epsilon."""
    above = epsilon / mean
    return float(ndtr(mean / 2 - above) - math.exp(epsilon + log_ndtr(-mean / 2 - above)))


def read_epsilon(loss: Loss, delta: float) -> float:
    """What ``loss.get_epsilon_for_delta`` finds point by point, from whole arrays."""
    ways = [loss._pmf_remove] if loss._symmetric else [loss._pmf_remove, loss._pmf_add]
    return max(_read_one_way(way.to_dense_pmf(), delta) for way in ways)


def _read_one_way(pmf: Any, delta: float) -> float:
    """The least epsilon, from 0 up, whose hockey-stick divergence is at most ``delta``.

    Between two neighbouring losses the divergence is ``upper - exp(epsilon) lower``, with the mass
    of all larger losses under either neighbour.
    """
    infinite = float(pmf._infinity_mass)
    if infinite > delta:
        return math.inf
    first = max(0, 1 - pmf._lower_loss)
    masses = pmf._probs[first:][::-1]
    losses = (np.arange(first, pmf.size)[::-1] + pmf._lower_loss) * pmf._discretization
    upper = infinite + np.cumsum(masses)
    lower = np.cumsum(masses * np.exp(-losses))
    with np.errstate(divide="ignore", invalid="ignore"):
        meets = np.log(np.maximum(upper - delta, 0)) - np.log(lower)
    # Below each loss but the last comes the next; below the last, zero.
    reached = meets > np.append(losses[1:], 0.0)
    if not reached.any():
        return 0.0
    place = int(np.argmax(reached))
    return float(min(meets[place], losses[place]))


def response_loss(keep_probability: float, classes: int, grid: float) -> Loss:
    """The loss of randomised response when one label is replaced by any other one."""
    from dp_accounting.pld import privacy_loss_distribution as library

    return library.from_randomized_response(
        1 - keep_probability, classes, value_discretization_interval=grid
    )


def no_loss(grid: float) -> Loss:
    """The loss of doing nothing."""
    from dp_accounting.pld import privacy_loss_distribution as library

    return library.identity(value_discretization_interval=grid)


@dataclass(frozen=True, eq=False)
class _Pair:
    """Noise around 0 against noise around ``shifts``, chosen with log-probabilities ``weights``."""

    deviation: float
    shifts: Array
    weights: Array

    def log_ratio(self, x: Array) -> Array:
        """Log of the density with the person over the density without, rising in ``x``."""
        return np.asarray(logsumexp(self._exponents(x), axis=1))

    def inverse(self, ratio: Array) -> Array:
        """Where ``log_ratio`` takes these values."""
        variance, last = self.deviation**2, self.shifts[-1]
        if len(self.shifts) == 1:
            return np.asarray(ratio * variance / last + last / 2)
        if len(self.shifts) == 2:
            rate = math.exp(self.weights[1])
            return np.asarray(np.log1p(np.expm1(ratio) / rate) * variance + 0.5)
        low, high = self._ends()
        table = np.linspace(low, high, _TABLE_POINTS)
        x = np.interp(ratio, self.log_ratio(table), table)
        for _ in range(_NEWTON_STEPS):  # what is left of the error enters the divergence squared
            exponents = self._exponents(x)
            value = logsumexp(exponents, axis=1)
            slope = np.exp(exponents - value[:, None]) @ self.shifts / variance
            x = x + np.clip((ratio - value) / slope, -0.1 * self.deviation, 0.1 * self.deviation)
        return np.asarray(x)

    def reach(self) -> float:
        """How far the losses extend, from the smallest to the largest."""
        low, high = self.log_ratio(np.array(self._ends()))
        return float(high - low)

    def pmf(self, grid: float, remove: bool) -> Any:
        """The library's distribution for one direction of the neighbouring relation."""
        from dp_accounting.pld.pld_pmf import DensePLDPmf

        ends = self.log_ratio(np.array(self._ends()))
        low, high = (ends[0], ends[1]) if remove else (-ends[1], -ends[0])
        first, last = math.floor(low / grid), math.ceil(high / grid)
        deltas = self.divergence(np.arange(first, last + 1) * grid, remove)
        deltas = np.minimum.accumulate(np.clip(deltas, 0, 1))
        falls = -np.diff(deltas)
        masses = np.append(1 - deltas[0], falls / -math.expm1(-grid))
        masses[:-1] -= falls / math.expm1(grid)
        return DensePLDPmf(grid, first, np.maximum(masses, 0), float(deltas[-1]), True)

    def divergence(self, epsilons: Array, remove: bool) -> Array:
        """The hockey-stick divergence at each epsilon: the least delta it holds with."""
        floor = self.weights[0] if self.shifts[0] == 0 else -math.inf
        ratios = epsilons if remove else -epsilons
        reachable = ratios > floor * (1 - 1e-12)  # the ratio never falls to the floor itself
        result = np.maximum(-np.expm1(epsilons), 0.0) if remove else np.zeros(len(epsilons))
        cut = self.inverse(ratios[reachable]) / self.deviation
        shifted = cut[:, None] - self.shifts / self.deviation
        if remove:  # the outcomes that speak for the person lie above the cut
            upper = ndtr(-shifted) @ np.exp(self.weights)
            lower = np.exp(epsilons[reachable] + log_ndtr(-cut))
        else:  # and those against below it; here epsilon is bounded, so no logarithm is needed
            upper = ndtr(cut)
            lower = np.exp(epsilons[reachable]) * (ndtr(shifted) @ np.exp(self.weights))
        result[reachable] = upper - lower
        return np.asarray(result)

    def _ends(self) -> tuple[float, float]:
        """The outcomes looked at; beyond them lies a mass of e^-50."""
        reach = _NOISE_TAIL * self.deviation
        return -reach, reach + float(self.shifts[-1])

    def _exponents(self, x: Array) -> Array:
        """Log of each part's weighed likelihood ratio, shape ``(len(x), shifts)``."""
        shift = (self.shifts * x[:, None] - self.shifts**2 / 2) / self.deviation**2
        return np.asarray(shift + self.weights)


def _log_binomial(trials: int, successes: Array, probability: float) -> Array:
    """Log-probability of each number of successes."""
    ways = gammaln(trials + 1) - gammaln(successes + 1) - gammaln(trials - successes + 1)
    log_odds = successes * math.log(probability) + (trials - successes) * math.log1p(-probability)
    return np.asarray(ways + log_odds)
