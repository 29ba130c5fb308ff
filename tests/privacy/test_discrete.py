"""Integer noise against the distribution it claims, also where 64 bits do not settle a coin."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from wardround.privacy import discrete
from wardround.privacy.discrete import discrete_gaussian, sum_distance

ALARM = 1e-9


def weights(sigma, reach):
    values = np.arange(-reach, reach + 1)
    mass = np.exp(-(values**2) / (2 * sigma**2))
    return values, mass / mass.sum()


@pytest.mark.statistical
@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.5, 17.3])
def test_samples_follow_the_discrete_gaussian(stream, sigma):
    samples = discrete_gaussian(sigma, 60_000, stream)
    assert samples.dtype == np.int64
    values, mass = weights(sigma, math.ceil(12 * sigma) + 2)
    common = mass * len(samples) >= 20
    seen = np.array([(samples == value).sum() for value in values[common]])
    rest = len(samples) - seen.sum()
    expected = mass[common] * len(samples)
    expected_rest = len(samples) - expected.sum()
    if expected_rest >= 20:
        seen, expected = np.append(seen, rest), np.append(expected, expected_rest)
    else:
        expected *= seen.sum() / expected.sum()
    assert stats.chisquare(seen, expected).pvalue > ALARM


@pytest.mark.statistical
def test_large_scales_have_the_right_spread(stream):
    sigma = 2.0**20
    samples = discrete_gaussian(sigma, 40_000, stream).astype(float)
    low, high = stats.chi2.ppf([ALARM / 2, 1 - ALARM / 2], len(samples))
    assert low < (samples**2).sum() / sigma**2 < high
    assert stats.kstest(samples / sigma, "norm").pvalue > ALARM


@pytest.mark.statistical
def test_coins_settled_exactly_fall_like_the_others(stream, monkeypatch):
    """With every float64 in doubt, each coin is settled by exact fractions: the same outcome."""
    monkeypatch.setattr(discrete, "_DOUBT", 2.0)
    samples = discrete_gaussian(1.5, 1500, stream)
    values, mass = weights(1.5, 3)
    seen = [(samples == value).sum() for value in values]
    assert stats.chisquare(seen, mass * np.sum(seen)).pvalue > ALARM


def test_an_exact_coin_reads_on_until_it_is_settled(stream, monkeypatch):
    """exp(-1) in 128 bits: a uniform number that agrees for 64 bits is settled by the next word."""
    digits = Fraction("0.3678794411714423215955237701614608674458111310317678345078368016974614957")
    word = int(digits * 2**64)
    following = int(digits * 2**128) - (word << 64)
    for extra, outcome in ((following - 5, True), (following + 5, False)):
        monkeypatch.setattr(stream, "words", lambda count, w=extra: np.array([w], np.uint64))
        assert discrete._settle(word, Fraction(1), stream) is outcome
    assert discrete._settle(word - 1, Fraction(1), stream) is True
    assert discrete._settle(word + 1, Fraction(1), stream) is False


def test_sums_of_shares_are_as_close_as_the_theorem_says():
    """Kairouz, Liu and Steinke (2021), theorem 1, written out for three shares."""
    expected = 10 * (math.exp(-(math.pi**2)) + math.exp(-2 * math.pi**2 * 2 / 3))
    assert sum_distance(1.0, 3) == pytest.approx(expected)
    assert sum_distance(3.2, 10) < 1e-40
    assert sum_distance(5.0, 1) == 0


@pytest.mark.parametrize("sigma", [0.0, -1.0, 2.0**25, math.nan])
def test_scales_out_of_range_are_refused(stream, sigma):
    with pytest.raises(ValueError, match="greater than 0 and at most"):
        discrete_gaussian(sigma, 1, stream)
