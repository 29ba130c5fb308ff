"""Integer noise: exact samples of the discrete Gaussian, for sums that are masked as integers.

Masks work modulo a power of two, so what is masked must be whole numbers, and so must its noise.
The sampler is exact: decisions are made on 64 random bits at a time and, where those do not settle
it, on more bits and exact fractions, so no floating-point error enters the distribution. How long
it takes depends on the values drawn; it must not run where somebody can time it.
Sources: Canonne, Kamath and Steinke (2020), "The discrete Gaussian for differential privacy",
algorithms 1 to 3; Kairouz, Liu and Steinke (2021), "The distributed discrete Gaussian mechanism",
theorem 1, for sums of several.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from wardround.privacy.stream import SecureStream

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

MOST_SIGMA = 2.0**24
_DOUBT = 2.0**-40  # nearer than this to a float64 probability, the exact one decides
_WORD = 2.0**-64


def discrete_gaussian(sigma: float, count: int, stream: SecureStream) -> Integers:
    """Independent samples with probability proportional to ``exp(-x**2 / (2 * sigma**2))``.

    Args:
        sigma: Scale, in (0, 2**24]; close to the standard deviation for 1 and above.
        count: How many.
        stream: Where the bits come from.

    Returns:
        Shape ``(count,)``, int64.
    """
    if not 0 < sigma <= MOST_SIGMA:
        raise ValueError(f"sigma is {sigma}; it must be greater than 0 and at most {MOST_SIGMA:g}")
    scale = math.floor(sigma) + 1
    variance = Fraction(sigma) ** 2
    accepted = np.empty(0, np.int64)
    while len(accepted) < count:
        wanted = int(1.5 * (count - len(accepted))) + 16
        proposed = _discrete_laplace(scale, wanted, stream)
        # exp(-(|y| - variance/scale)^2 / (2 variance)), as whole numbers over a common divisor.
        kept = _bernoulli_exp(np.abs(proposed), variance, scale, stream)
        accepted = np.concatenate([accepted, proposed[kept]])
    return accepted[:count]


def sum_distance(sigma: float, shares: int) -> float:
    """How far a sum of independent shares is from one discrete Gaussian, in log-probability.

    Kairouz, Liu and Steinke (2021), theorem 1: at most this much a coordinate, for ``shares``
    shares of scale ``sigma`` each. Below 1e-40 from a sigma of 3.2 on, so a sum of shares may be
    accounted as one draw of scale ``sigma * sqrt(shares)``.
    """
    terms = np.arange(1, shares)
    return float(10 * np.exp(-2 * math.pi**2 * sigma**2 * terms / (terms + 1)).sum())


def _discrete_laplace(scale: int, count: int, stream: SecureStream) -> Integers:
    """Samples with probability proportional to ``exp(-|x| / scale)``."""
    accepted = np.empty(0, np.int64)
    while len(accepted) < count:
        size = int(2.2 * (count - len(accepted))) + 16
        low = stream.below(scale, size)
        low = low[_bernoulli_ratio(low, scale, stream)]
        high = np.zeros(len(low), np.int64)
        running = np.ones(len(low), bool)
        while running.any():
            running[running] = _bernoulli_ratio(np.ones(int(running.sum()), np.int64), 1, stream)
            high += running
        magnitude = low + scale * high
        negative = stream.below(2, len(low)) == 1
        sound = ~(negative & (magnitude == 0))  # zero must not count twice
        accepted = np.concatenate([accepted, np.where(negative, -magnitude, magnitude)[sound]])
    return accepted[:count]


def _bernoulli_ratio(numerators: Integers, denominator: int, stream: SecureStream) -> Booleans:
    """Coins that fall true with probability ``exp(-numerator / denominator)``."""
    exponents = numerators / denominator

    def exact(position: int) -> Fraction:
        return Fraction(int(numerators[position]), denominator)

    return _bernoulli(exponents, exact, stream)


def _bernoulli_exp(
    magnitudes: Integers, variance: Fraction, scale: int, stream: SecureStream
) -> Booleans:
    """Coins for the discrete Gaussian's rejection step."""
    centre = float(variance) / scale
    exponents = np.asarray((magnitudes - centre) ** 2 / (2 * float(variance)), np.float64)

    def exact(position: int) -> Fraction:
        return (int(magnitudes[position]) - variance / scale) ** 2 / (2 * variance)

    return _bernoulli(exponents, exact, stream)


def _bernoulli(
    exponents: NDArray[np.float64], exact: Callable[[int], Fraction], stream: SecureStream
) -> Booleans:
    """Coins that fall true with probability ``exp(-exponent)``, exactly.

    Args:
        exponents: Float64 approximations, 0 or more.
        exact: The exponent at a position, where the approximation does not settle it.
        stream: Where the bits come from.
    """
    words = stream.words(len(exponents))
    distance = np.exp(-exponents) - words.astype(np.float64) * _WORD
    coins = distance > 0
    for position in np.flatnonzero(np.abs(distance) < _DOUBT):
        coins[position] = _settle(int(words[position]), exact(int(position)), stream)
    return coins


def _settle(word: int, exponent: Fraction, stream: SecureStream) -> bool:
    """Whether a uniform number that begins with ``word`` lies below ``exp(-exponent)``."""
    bits, digits = 64, 50
    while True:
        with localcontext(prec=digits):
            ratio = Decimal(exponent.numerator) / Decimal(exponent.denominator)
            probability = Fraction((-ratio).exp())
        slack = Fraction(1, 10 ** (digits - 10))
        if Fraction(word + 1, 2**bits) <= probability - slack:
            return True
        if Fraction(word, 2**bits) >= probability + slack:
            return False
        word = word << 64 | int(stream.words(1)[0])
        bits, digits = bits + 64, digits + 20
