"""The accountant: epsilon from a list of events, by privacy-loss distributions (PLD).

The distributions are composed, and epsilon is read off, by google's dp-accounting. What is reported
is always composed from events and never added up from epsilons. An event the accountant cannot
interpret raises; nothing is rounded down. Prediction and spending go through the same function over
the same multiset of events, so they agree to the last bit.
Sources: as in ``privacy.loss``; ``privacy.second_opinion`` asks further accountants.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from functools import cache, lru_cache
from importlib.metadata import version

from wardround.privacy.events import (
    Event,
    Gaussian,
    PoissonSampled,
    Primitive,
    RandomisedResponse,
    Repeated,
    Unprotected,
    compose,
    primitive_counts,
)
from wardround.privacy.loss import (
    Loss,
    gaussian_epsilon,
    gaussian_loss,
    no_loss,
    read_epsilon,
    response_loss,
)

REPORT_GRID = 1e-4
SEARCH_GRID = 1e-3
DIGIT = 10_000  # a calibrated noise multiplier is a whole number of parts of so many
LEAST_MULTIPLIER = 0.2  # less is never calibrated to
MOST_EPSILON = 100.0  # a larger target protects nobody

_EXACT_KINDS = 8  # up to so many kinds of event, the same multiset gives the same bits
_KEPT_SUMS = 6
_KEPT_EPSILONS = 1024
_MOST_LOSS = 300.0  # expected loss beyond which epsilon is called infinite


@cache
def accountant_name(grid: float = REPORT_GRID) -> str:
    """Name and version of what computes epsilon, for reports."""
    return f"PLD, dp-accounting {version('dp-accounting')}, grid {grid:g}"


def epsilon(event: Event, delta: float, records: int = 1) -> float:
    """The smallest epsilon such that ``event`` is (epsilon, delta)-DP, add/remove one unit.

    Infinite where data was used unprotected.

    Args:
        event: What was, or would be, done to the data.
        delta: Chance that is left outside the bound, in (0, 1).
        records: For a person whose data are that many units: the figure for adding or removing
            all of them.

    Raises:
        ValueError: ``delta`` or ``records`` out of range.
    """
    grid = REPORT_GRID if records == 1 else SEARCH_GRID
    return _accountant(grid, records).epsilon(event, delta)


class Accountant:
    """Epsilon of growing lists of events; keeps what it composed, so the next question is quick.

    Safe to share between threads. Up to eight kinds of event the answer depends on the multiset of
    events alone, to the last bit; beyond that it also depends, by less than 1e-6, on what was
    composed before, because only the difference is composed.
    """

    def __init__(self, grid: float = REPORT_GRID, records: int = 1) -> None:
        """An accountant on this grid, for a person with ``records`` units."""
        if records < 1:
            raise ValueError(f"records is {records}; it must be 1 or more")
        self._grid = grid
        self._records = records
        self._lock = threading.Lock()
        self._names: dict[Primitive, int] = {}
        self._sums: OrderedDict[frozenset[tuple[int, int]], Loss] = OrderedDict()
        self._epsilons: OrderedDict[tuple[frozenset[tuple[Primitive, int]], float], float]
        self._epsilons = OrderedDict()

    def epsilon(self, event: Event, delta: float) -> float:
        """As the function ``epsilon``; can be handed to ``Policy.decide``."""
        if not 0 < delta < 1:
            raise ValueError(f"delta is {delta}; it must lie strictly between 0 and 1")
        counts = self._counted(event)
        if counts is None:
            return math.inf
        question = frozenset(counts.items()), delta
        with self._lock:
            known = self._epsilons.get(question)
        if known is None:
            known = self._read(counts, delta)
            with self._lock:
                self._epsilons[question] = known
                if len(self._epsilons) > _KEPT_EPSILONS:
                    self._epsilons.popitem(last=False)
        return known

    def loss(self, event: Event) -> Loss | None:
        """The privacy-loss distribution of ``event``, a ``PrivacyLossDistribution`` of the library.

        None where data was used unprotected, or with so little noise that it comes to the same.
        """
        counts = self._counted(event)
        return None if counts is None else self._sum(counts)

    def _read(self, counts: Mapping[Primitive, int], delta: float) -> float:
        """Epsilon of all of ``counts`` together."""
        if all(isinstance(part, Gaussian) for part in counts):
            # Losses of Gaussians add up to a Gaussian one, of which epsilon is known exactly.
            squares = sorted(count * 2 * _least_loss(part) for part, count in counts.items())
            return gaussian_epsilon(self._records * math.sqrt(sum(squares)), delta)
        loss = self._sum(counts)
        return math.inf if loss is None else read_epsilon(loss, delta)

    def _counted(self, event: Event) -> dict[Primitive, int] | None:
        """What costs anything in ``event``, and how often; None where it costs everything."""
        counts: dict[Primitive, int] = {}
        for part, count in primitive_counts(event).items():
            if isinstance(part, Unprotected):
                return None
            if isinstance(part, PoissonSampled) and part.sampling_rate == 1:
                part = part.event
            if not _tells_nothing(part):
                counts[part] = counts.get(part, 0) + count
        if self._records**2 * sum(n * _least_loss(p) for p, n in counts.items()) > _MOST_LOSS:
            return None
        return counts

    def _sum(self, counts: Mapping[Primitive, int]) -> Loss | None:
        """All of ``counts`` composed, from the largest part of it that is known."""
        with self._lock:
            named = {self._names.setdefault(part, len(self._names)): part for part in counts}
            key = frozenset((name, counts[part]) for name, part in named.items())
            if key in self._sums:
                self._sums.move_to_end(key)
                return self._sums[key]
            exact = len(counts) <= _EXACT_KINDS
            loss, missing = (None, counts) if exact else self._known_part(counts)
            for part in sorted(missing, key=repr):
                power = _power(part, missing[part], self._grid, self._records)
                if power is None:
                    return None
                loss = power if loss is None else loss.compose(power)
            self._sums[key] = no_loss(self._grid) if loss is None else loss
            if len(self._sums) > _KEPT_SUMS:
                self._sums.popitem(last=False)
            return self._sums[key]

    def _known_part(
        self, counts: Mapping[Primitive, int]
    ) -> tuple[Loss | None, Mapping[Primitive, int]]:
        """The largest known sum inside ``counts``, and what it lacks."""
        wanted = {self._names[part]: count for part, count in counts.items()}
        best: frozenset[tuple[int, int]] = frozenset()
        for key in self._sums:
            inside = all(wanted.get(name, 0) >= count for name, count in key)
            if inside and len(key) >= len(best):
                best = key
        known = dict(best)
        missing = {
            part: count - known.get(self._names[part], 0)
            for part, count in counts.items()
            if count > known.get(self._names[part], 0)
        }
        return self._sums.get(best), missing


def calibrate_noise_multiplier(
    target_epsilon: float, delta: float, sampling_rate: float, steps: int
) -> float:
    """The least noise multiplier (to 4 digits) that keeps ``steps`` steps within the target.

    Raises:
        ValueError: The target or another argument is out of range.
    """

    def study(noise_multiplier: float) -> Event:
        return Repeated(PoissonSampled(sampling_rate, Gaussian(noise_multiplier)), steps)

    return calibrate(study, target_epsilon, delta)


def calibrate(make_event: Callable[[float], Event], target_epsilon: float, delta: float) -> float:
    """The least noise multiplier (to 4 digits) whose event stays within the target.

    The answer is checked on the reporting grid, so the epsilon reported for the whole study never
    exceeds the target.

    Args:
        make_event: The event of the whole study for one noise multiplier.
        target_epsilon: The bound.
        delta: What it is computed at.

    Raises:
        ValueError: The target is out of range or out of reach.
    """
    if not 0 < target_epsilon <= MOST_EPSILON:
        raise ValueError(
            f"epsilon is {target_epsilon}; it must be greater than 0 and at most {MOST_EPSILON:g}"
        )

    def cost(noise_multiplier: float, grid: float) -> float:
        return _accountant(grid, 1).epsilon(make_event(noise_multiplier), delta)

    # From above: tiny multipliers make the loss distribution, and the time to compute it, huge.
    high = 16.0
    while (at_high := cost(high, SEARCH_GRID)) > target_epsilon:
        high *= 4
        if high > 1e6:
            raise ValueError(f"epsilon {target_epsilon} is out of reach at delta {delta}")
    low = max(high / 2, LEAST_MULTIPLIER)
    while (at_low := cost(low, SEARCH_GRID)) <= target_epsilon and low > LEAST_MULTIPLIER:
        low, high, at_high = max(low / 2, LEAST_MULTIPLIER), low, at_low
    while high / low > 1 + 1e-4 and at_low > target_epsilon:
        middle = _between((low, at_low), (high, at_high), target_epsilon)
        at_middle = cost(middle, SEARCH_GRID)
        if at_middle > target_epsilon:
            low, at_low = middle, at_middle
        else:
            high, at_high = middle, at_middle

    def fits(digits: int) -> bool:
        return cost(digits / DIGIT, REPORT_GRID) <= target_epsilon

    return _polish(high if at_low > target_epsilon else low, fits) / DIGIT


def _between(low: tuple[float, float], high: tuple[float, float], target: float) -> float:
    """Where epsilon should meet the target, by a power law through two (multiplier, epsilon)."""
    (left, at_left), (right, at_right) = low, high
    if at_right == 0 or math.isinf(at_left):
        return math.sqrt(left * right)
    share = math.log(at_left / target) / math.log(at_left / at_right)
    guess = left * math.pow(right / left, share)
    # A little off the ends, so that a good guess closes the interval from its other side.
    return min(max(guess, left * (1 + 5e-5)), right / (1 + 5e-5))


def _polish(guess: float, fits: Callable[[int], bool]) -> int:
    """The least whole number of digits that fits, near what the coarse grid found."""
    high, stride = math.ceil(guess * DIGIT), 1
    while not fits(high):
        high += 1
    least = round(LEAST_MULTIPLIER * DIGIT) - 1
    low = max(high - stride, least)
    while low > least and fits(low):
        stride *= 2
        high, low = low, max(low - stride, least)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def across_hospitals(events: Iterable[Event], delta: float, linkable: bool) -> float:
    """Epsilon of one patient over several hospitals.

    Args:
        events: What each hospital did to its own data.
        delta: What epsilon is computed at.
        linkable: Whether one patient may have records at several of them. If so everything
            composes; if not, each patient meets one hospital, and the worst of them counts
            (parallel composition, McSherry 2009).
    """
    if linkable:
        return epsilon(compose(*events), delta)
    return max((epsilon(event, delta) for event in events), default=0.0)


def default_delta(units: int) -> float:
    """A delta well below one over the number of units: a tenth of it, and 1e-5 at most."""
    return min(1e-5, 1 / (10 * units))


def require_delta(delta: float, units: int) -> None:
    """Raise ``ValueError`` unless ``delta`` is below one over the number of units.

    With delta at 1/units or above, publishing one unit in full would count as private (Dwork and
    Roth 2014, section 2.3).
    """
    if not 0 < delta < 1 / units:
        raise ValueError(
            f"delta is {delta:g}; with {units} units it must be greater than 0 and below "
            f"{1 / units:g}, for example {default_delta(units):g}"
        )


def _tells_nothing(part: Primitive) -> bool:
    """Whether nobody can have been in the sample, or every label is uniform."""
    if isinstance(part, RandomisedResponse):
        return part.keep_probability == 0
    return isinstance(part, PoissonSampled) and part.sampling_rate == 0


@lru_cache(maxsize=8)
def _accountant(grid: float, records: int) -> Accountant:
    """The process's own accountants, for the functions of this module."""
    return Accountant(grid, records)


def _least_loss(part: Primitive) -> float:
    """Roughly the expected loss of one event, from below; exact for an unsampled Gaussian."""
    match part:
        case Gaussian(noise_multiplier):
            return noise_multiplier**-2 / 2
        case PoissonSampled(sampling_rate, Gaussian(noise_multiplier)):
            seen = noise_multiplier**-2 / 2
            return max(sampling_rate**2 * seen, sampling_rate * (seen + math.log(sampling_rate)))
    return 0.0


@lru_cache(maxsize=16)
def _power(part: Primitive, count: int, grid: float, records: int) -> Loss | None:
    """``count`` of one kind of event."""
    if isinstance(part, Gaussian):
        # A sum of Gaussian losses is a Gaussian loss: exact, and one distribution instead of many.
        return gaussian_loss(part.noise_multiplier / math.sqrt(count), 1.0, grid, records)
    single = _single(part, grid, records)
    return single if single is None or count == 1 else single.self_compose(count)


@lru_cache(maxsize=64)
def _single(part: Primitive, grid: float, records: int) -> Loss | None:
    """One event's loss distribution."""
    match part:
        case PoissonSampled(sampling_rate, Gaussian(noise_multiplier)):
            return gaussian_loss(noise_multiplier, sampling_rate, grid, records)
        case RandomisedResponse(keep_probability, classes):
            return response_loss(keep_probability, classes, grid).self_compose(records)
    raise TypeError(f"no accounting rule for {part}")
