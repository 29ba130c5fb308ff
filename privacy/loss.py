"""Privacy-loss distributions: how much one step can tell about one unit, and many steps together.

A loss is the log-likelihood ratio an observer gains between two neighbouring data sets. Its
distribution on a fixed grid composes by convolution. Every rounding is pessimistic: the epsilon
read off is never below the true one, up to floating-point noise of about 1e-12 in delta.
Knows nothing of events or ledgers.

Sources: Koskela et al. (2020) for composition by FFT; Doroshenko et al. (2022), algorithm 1
("connect the dots") for the grid; Ganesh (2024), "Tight group-level DP guarantees for DP-SGD", for
several records of one person. Same construction as google's ``dp_accounting.pld``, which is the
oracle of the tests; vectorised, because a report must not wait for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft
from scipy.special import gammaln, log_ndtr, logsumexp, ndtr, ndtri

Array = NDArray[np.float64]

TAIL_MASS = 1e-15  # what one composition may cut off, counted as certain disclosure
_NOISE_TAIL = float(-ndtri(0.5 * math.exp(-50)))  # standard deviations of noise looked at
_NEWTON_STEPS = 4
_MOST_POINTS = 2**23  # beyond, epsilon is called infinite instead of computed
_BLOCK = 300.0  # span of losses whose likelihood ratios fit a float64 together
_COARSE = 2000  # cells in which tail bounds are computed
_ORDERS = 2.0 ** np.linspace(-12, 1.5, 40)  # relative to the best order for a normal loss


@dataclass(frozen=True, eq=False)
class LossPmf:
    """Probabilities of the losses ``(first + i) * grid``, and of an infinite loss.

    Attributes:
        grid: Distance of neighbouring losses.
        first: The smallest loss, in grid steps.
        probabilities: Shape ``(n,)``.
        infinite: Probability of a loss beyond all bounds.
    """

    grid: float
    first: int
    probabilities: Array
    infinite: float

    def compose(self, other: Self) -> LossPmf:
        """The loss of both mechanisms together."""
        size = len(self.probabilities) + len(other.probabilities) - 1
        if size > _MOST_POINTS or max(self.infinite, other.infinite) >= 1:
            return _hopeless(self.grid)
        length = next_fast_len(size, real=True)
        spectrum = rfft(self.probabilities, length) * rfft(other.probabilities, length)
        both = irfft(spectrum, length)[:size]
        infinite = self.infinite + other.infinite - self.infinite * other.infinite
        return _trim(LossPmf(self.grid, self.first + other.first, both, infinite))

    def repeat(self, count: int) -> LossPmf:
        """The loss of ``count`` independent runs of the mechanism, 1 or more."""
        if count == 1:
            return self
        low, high = _window(self.probabilities, count)
        length = next_fast_len(max(high - low + 1, len(self.probabilities)), real=True)
        if length > _MOST_POINTS:
            return _hopeless(self.grid)
        spectrum = rfft(self.probabilities, length) ** count
        total = np.roll(irfft(spectrum, length), -low)[: high - low + 1]
        infinite = TAIL_MASS - math.expm1(count * math.log1p(-self.infinite))
        return _trim(LossPmf(self.grid, self.first * count + low, total, infinite))

    def deltas(self) -> tuple[Array, Array]:
        """Losses in ascending order, and the least delta for each of them taken as epsilon."""
        losses = (self.first + np.arange(len(self.probabilities))) * self.grid
        deltas = np.empty_like(self.probabilities)
        mass, weighed = self.infinite, 0.0  # of the losses beyond this block, as seen from its end
        block = int(_BLOCK / self.grid)
        for end in range(len(deltas), 0, -block):
            part = self.probabilities[max(0, end - block) : end][::-1]
            decay = np.exp(-np.arange(len(part)) * self.grid)
            masses = mass + np.cumsum(part)
            # A loss counts for 1 - exp(epsilon - loss); its own term cancels where they are equal.
            weights = decay * (weighed + np.cumsum(part / decay))
            deltas[max(0, end - block) : end] = (masses - weights)[::-1]
            mass, weighed = float(masses[-1]), float(weights[-1]) * math.exp(-self.grid)
        return losses, np.maximum(deltas, 0.0)

    def epsilon(self, delta: float) -> float:
        """The least epsilon, 0 or more, at which this loss is (epsilon, delta)-private."""
        if self.infinite > delta:
            return math.inf
        losses, deltas = self.deltas()
        above = int(np.searchsorted(-deltas, -delta))  # deltas fall; first loss with delta enough
        if above == 0:
            return 0.0  # the smallest loss is never above 0
        # Between two grid points delta is upper - exp(epsilon) * lower, exactly.
        tail = self.probabilities[above:]
        upper = self.infinite + float(tail.sum())
        lower = float(tail @ np.exp(-np.arange(len(tail)) * self.grid))
        return max(0.0, float(losses[above]) + math.log((upper - delta) / lower))


@dataclass(frozen=True, eq=False)
class Loss:
    """The loss distributions for both directions of the neighbouring relation.

    Attributes:
        remove: With the unit against without it.
        add: Without the unit against with it.
    """

    remove: LossPmf
    add: LossPmf

    def compose(self, other: Self) -> Loss:
        """The loss of both mechanisms together."""
        remove = self.remove.compose(other.remove)
        if self.add is self.remove and other.add is other.remove:
            return Loss(remove, remove)
        return Loss(remove, self.add.compose(other.add))

    def repeat(self, count: int) -> Loss:
        """The loss of ``count`` independent runs of the mechanism, 1 or more."""
        remove = self.remove.repeat(count)
        return Loss(remove, remove if self.add is self.remove else self.add.repeat(count))

    def epsilon(self, delta: float) -> float:
        """The least epsilon for which both directions are (epsilon, delta)-private."""
        return max(self.remove.epsilon(delta), self.add.epsilon(delta))


def gaussian_loss(
    noise_multiplier: float, sampling_rate: float, grid: float, records: int = 1
) -> Loss:
    """The loss of a Gaussian sum over a Poisson sample, for a person with ``records`` units in it.

    Args:
        noise_multiplier: Noise standard deviation in units of the sensitivity.
        sampling_rate: Chance of each unit to be in the sample, above 0.
        grid: Distance of neighbouring losses.
        records: How many units the neighbours differ by; each joins the sample on its own.
    """
    if sampling_rate == 1:
        pair = _Mixture(noise_multiplier, np.array([float(records)]), np.array([0.0]))
        loss = pair.pmf(grid, remove=True)
        return Loss(loss, loss)
    shifts = np.arange(records + 1.0)
    weights = (
        gammaln(records + 1) - gammaln(shifts + 1) - gammaln(records - shifts + 1)
        + shifts * math.log(sampling_rate)
        + (records - shifts) * math.log1p(-sampling_rate)
    )  # fmt: skip
    pair = _Mixture(noise_multiplier, shifts, weights)
    return Loss(pair.pmf(grid, remove=True), pair.pmf(grid, remove=False))


def response_loss(keep_probability: float, classes: int, grid: float) -> Loss:
    """The loss of randomised response when one label is replaced by any other one."""
    other = (1 - keep_probability) / classes
    kept = keep_probability + other
    steps = math.ceil(math.log(kept / other) / grid)
    probabilities = np.zeros(2 * steps + 1)
    probabilities[0] += other
    probabilities[steps] += 1 - kept - other
    probabilities[-1] += kept
    loss = LossPmf(grid, -steps, probabilities, 0.0)
    return Loss(loss, loss)


@dataclass(frozen=True, eq=False)
class _Mixture:
    """Noise around 0 against noise around ``shifts``, chosen with log-probabilities ``weights``."""

    deviation: float
    shifts: Array
    weights: Array

    def log_ratio(self, x: Array) -> Array:
        """Log of the density with the person over the density without, rising in ``x``."""
        return np.asarray(logsumexp(self._exponents(x), axis=1))

    def _exponents(self, x: Array) -> Array:
        """Log of each part's weighed likelihood ratio, shape ``(len(x), shifts)``."""
        shift = (self.shifts * x[:, None] - self.shifts**2 / 2) / self.deviation**2
        return np.asarray(shift + self.weights)

    def inverse(self, ratio: Array) -> Array:
        """Where ``log_ratio`` takes these values."""
        variance, last = self.deviation**2, self.shifts[-1]
        if len(self.shifts) == 1:
            return np.asarray(ratio * variance / last + last / 2)
        if len(self.shifts) == 2:
            rate = math.exp(self.weights[1])
            return np.asarray(np.log1p(np.expm1(ratio) / rate) * variance + 0.5)
        reach = _NOISE_TAIL * self.deviation
        table = np.linspace(-reach, reach + last, 4096)
        x = np.interp(ratio, self.log_ratio(table), table)
        for _ in range(_NEWTON_STEPS):  # an error here only enters delta squared
            exponents = self._exponents(x)
            value = logsumexp(exponents, axis=1)
            slope = np.exp(exponents - value[:, None]) @ self.shifts / variance
            x = x + np.clip((ratio - value) / slope, -0.1 * self.deviation, 0.1 * self.deviation)
        return np.asarray(x)

    def pmf(self, grid: float, remove: bool) -> LossPmf:
        """The loss distribution on the grid, pessimistic, for one direction."""
        reach = _NOISE_TAIL * self.deviation
        ends = self.log_ratio(np.array([-reach, reach + self.shifts[-1]]))
        low, high = (ends[0], ends[1]) if remove else (-ends[1], -ends[0])
        if high - low > _MOST_POINTS * grid:
            return _hopeless(grid)
        first, last = math.floor(low / grid), math.ceil(high / grid)
        deltas = self._deltas(np.arange(first, last + 1) * grid, remove)
        return _connect_the_dots(np.minimum.accumulate(np.clip(deltas, 0, 1)), first, grid)

    def _deltas(self, epsilons: Array, remove: bool) -> Array:
        """The least delta for each epsilon: the hockey-stick divergence of the pair."""
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


def _connect_the_dots(deltas: Array, first: int, grid: float) -> LossPmf:
    """The least loss distribution on the grid whose delta is nowhere below the given ones."""
    if len(deltas) == 1:
        return LossPmf(grid, first, np.array([1 - deltas[0]]), float(deltas[0]))
    slopes = np.diff(deltas)
    probabilities = np.empty_like(deltas)
    probabilities[0] = 1 - deltas[0] + slopes[0] / math.expm1(grid)
    probabilities[1:-1] = (slopes[1:] - slopes[:-1] * math.exp(grid)) / math.expm1(grid)
    probabilities[-1] = slopes[-1] / math.expm1(-grid)
    return LossPmf(grid, first, np.maximum(probabilities, 0.0), float(deltas[-1]))


def _hopeless(grid: float) -> LossPmf:
    """Certain disclosure: what is assumed where the exact figure would not fit into memory."""
    return LossPmf(grid, 0, np.zeros(1), 1.0)


def _trim(pmf: LossPmf) -> LossPmf:
    """Cut off tails of at most ``TAIL_MASS``; the right one counts as infinite loss."""
    probabilities = pmf.probabilities
    left = int(np.searchsorted(np.cumsum(probabilities), TAIL_MASS / 2))
    right = len(probabilities) - int(np.searchsorted(np.cumsum(probabilities[::-1]), TAIL_MASS / 2))
    right = max(right, left + 1)
    kept = probabilities[left:right].copy()
    kept[0] += probabilities[:left].sum()
    infinite = pmf.infinite + float(probabilities[right:].sum())
    return LossPmf(pmf.grid, pmf.first + left, kept, infinite)


def _window(probabilities: Array, count: int) -> tuple[int, int]:
    """Steps between which all but ``TAIL_MASS`` of a sum of ``count`` losses lies (Chernoff)."""
    last = len(probabilities) - 1
    width = max(1, last // _COARSE)
    place = np.arange(last + 1) / width
    cell = place.astype(np.int64)
    # Moving mass to the cell's edges with its mean kept only raises a moment-generating function.
    up = probabilities * (place - cell)
    coarse = np.bincount(cell, probabilities - up, cell[-1] + 2)
    coarse += np.bincount(cell + 1, up, cell[-1] + 2)
    edges = np.arange(len(coarse)) * float(width)
    mean = float(edges @ coarse) / float(coarse.sum())
    centred = edges - mean
    variance = max(float(centred**2 @ coarse), 1e-12)
    orders = math.sqrt(2 * math.log(2 / TAIL_MASS) / (count * variance)) * _ORDERS
    reach = []
    for sign in (1.0, -1.0):
        moments = logsumexp(np.outer(sign * orders, centred), b=np.maximum(coarse, 0), axis=1)
        reach.append(float(np.min((count * moments + math.log(2 / TAIL_MASS)) / orders)))
    high = min(last * count, math.ceil(count * mean + reach[0]))
    return max(0, math.floor(count * mean - reach[1])), high
