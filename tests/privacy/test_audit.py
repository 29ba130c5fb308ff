"""The audit's bounds against published values, closed forms and simulated mechanisms."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from scipy.stats import binom, binomtest, mannwhitneyu

from wardround.privacy.accountant import epsilon
from wardround.privacy.audit import (
    Guessing,
    area_under_curve,
    chance_of_right,
    clopper_pearson,
    one_run_epsilon,
)
from wardround.privacy.events import Gaussian

DELTA = 1e-5


@pytest.mark.parametrize(
    ("canaries", "guesses", "right", "expected"),
    [
        # Steinke, Nasr and Jagielski (2023), figure 2's perfect guesser with 100 guesses; the other
        # two are published in the audit report of an unrelated open-source project.
        (1000, 100, 100, 3.4654),
        (500, 35, 23, 0.01455),
        (500, 100, 60, 0.05074),
    ],
)
def test_published_bounds(canaries: int, guesses: int, right: int, expected: float) -> None:
    guessing = Guessing(canaries, guesses - guesses // 2, guesses // 2)
    assert one_run_epsilon(guessing, right, DELTA) == pytest.approx(expected, abs=6e-5)


def test_without_delta_the_bound_is_the_binomial_one() -> None:
    """Closed form: all of r right gives p^r = 0.05, so epsilon = ln(p / (1 - p))."""
    p = 0.05 ** (1 / 40)
    bound = one_run_epsilon(Guessing(40, 20, 20), 40, 0.0)
    assert bound == pytest.approx(math.log(p / (1 - p)), abs=1e-8)


@pytest.mark.parametrize("right", [0, 3, 30])
def test_the_chance_is_the_formula_written_out(right: int) -> None:
    """The oracle is the paper's formula, term by term, on scipy's binomial distribution."""
    guessing, eps, delta = Guessing(60, 20, 10), 0.4, 1e-3
    x = binom(30, 1 / (1 + math.exp(-eps)))
    worst = max(
        (sum(x.pmf(right - j) for j in range(1, i + 1)) / i for i in range(1, right + 1)),
        default=0.0,
    )
    expected = min(1.0, x.sf(right - 1) + 2 * 60 * delta * worst)
    assert chance_of_right(guessing, right, eps, delta) == pytest.approx(expected, rel=1e-9)


def test_luck_proves_nothing_and_certainty_proves_no_infinity() -> None:
    guessing = Guessing(200, 50, 50)
    assert one_run_epsilon(guessing, 0, DELTA) == 0.0
    assert one_run_epsilon(guessing, 55, DELTA) == 0.0
    # No delta, no doubt at all: a probability of 1 rounds the other terms away.
    assert chance_of_right(guessing, 100, 64.0, 0.0) == 1.0
    assert chance_of_right(guessing, 99, 64.0, 0.0) == 1.0


@cache
def _bound(guessing: Guessing, right: int) -> float:
    return one_run_epsilon(guessing, right, DELTA)


def _audits(noise: float, runs: int, guessing: Guessing, seed: int) -> list[float]:
    """Bounds from runs of the Gaussian mechanism on canaries that do not touch each other."""
    generator = torch.Generator().manual_seed(seed)
    shape = (runs, guessing.canaries)
    coins = torch.rand(shape, generator=generator) < 0.5
    scores = coins + noise * torch.randn(shape, generator=generator)
    return [
        _bound(guessing, guessing.count_right(score, coin))
        for score, coin in zip(scores, coins, strict=True)
    ]


@pytest.mark.statistical
def test_the_bound_stays_under_the_claim_of_a_correct_mechanism() -> None:
    """400 runs a noise level, seeds 1 to 3. At most 5 % of runs may exceed the claim.

    False alarms: for Gaussian noise the theorem leaves slack. One run's right guesses would have to
    exceed their mean by 6.8 standard deviations or more, so the chance of 21 such runs, and even of
    a single one, is below 1e-8.
    """
    guessing = Guessing(1000, 200, 200)
    for seed, noise in enumerate((1.0, 2.0, 4.0), start=1):
        claim = epsilon(Gaussian(noise), DELTA)
        bounds = _audits(noise, 400, guessing, seed)
        assert sum(bound > claim for bound in bounds) <= 0.05 * 400
        assert max(bounds) > 0.1, "an audit that never finds anything tests nothing"


@pytest.mark.statistical
def test_where_the_theory_is_tight_one_run_in_twenty_exceeds() -> None:
    """Randomised response at epsilon 1: right guesses are exactly Binomial(r, p).

    1000 runs, seed 4. Excesses are Binomial(1000, at most 0.05): more than its quantile at 1e-9 is
    a bug, and so is hardly ever exceeding: the bound would be too low to be worth having.
    """
    guessing, p = Guessing(400, 200, 200), 1 / (1 + math.exp(-1.0))
    generator = torch.Generator().manual_seed(4)
    right = (torch.rand((1000, 400), generator=generator) < p).sum(1).tolist()
    bound = {v: one_run_epsilon(guessing, v, 0.0) for v in set(right)}
    excesses = sum(bound[v] > 1.0 for v in right)
    assert 10 <= excesses <= binom.isf(1e-9, 1000, 0.05)


@pytest.mark.statistical
@pytest.mark.parametrize("noise", [0.1, 0.0])
def test_a_mechanism_with_less_noise_than_claimed_is_caught(noise: float) -> None:
    """Broken twins: a tenth of the noise, and clipping alone, both sold as noise multiplier 1.

    1000 canaries, 50 runs, seed 5. At a tenth of the noise a guess is wrong with probability
    Phi(-5) = 3e-7, so all 1000 are right but in one run of 3000.
    """
    claim = epsilon(Gaussian(1.0), DELTA)
    bounds = _audits(noise, 50, Guessing(1000, 350, 350), seed=5)
    assert min(bounds) > claim


@pytest.mark.parametrize(
    ("counts", "name"),
    [
        ((0, 1, 0), "canaries"),
        ((5, -1, 2), "joined"),
        ((5, 1, -1), "left_out"),
        ((5, 0, 0), "between 1 and canaries"),
        ((5, 3, 3), "between 1 and canaries"),
    ],
)
def test_guesses_that_make_no_sense(counts: tuple[int, int, int], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Guessing(*counts)


def test_guesses_are_the_ends_of_the_order() -> None:
    scores = torch.tensor([0.1, 5.0, -3.0, 2.0, 0.0, -1.0])
    coins = torch.tensor([True, True, False, False, True, True])
    # Highest two: 5.0 (in, right) and 2.0 (out, wrong); lowest two: -3.0 (out, right), -1.0 (in).
    assert Guessing(6, 2, 2).count_right(scores, coins) == 2
    assert Guessing(6, 1, 0).count_right(scores, coins) == 1
    assert Guessing(6, 0, 1).count_right(scores, coins) == 1
    with pytest.raises(ValueError, match=r"\(5,\)"):
        Guessing(6, 1, 1).count_right(scores[:5], coins)
    with pytest.raises(ValueError, match=r"both must be \(6,\)"):
        Guessing(6, 1, 1).count_right(scores, coins[:5])


@pytest.mark.parametrize(
    ("right", "delta", "confidence", "name"),
    [
        (-1, DELTA, 0.95, "right"),
        (11, DELTA, 0.95, "right"),
        (5, 1.0, 0.95, "delta"),
        (5, -0.1, 0.95, "delta"),
        (5, DELTA, 1.0, "confidence"),
        (5, DELTA, 0.0, "confidence"),
    ],
)
def test_questions_without_an_answer(
    right: int, delta: float, confidence: float, name: str
) -> None:
    with pytest.raises(ValueError, match=name):
        one_run_epsilon(Guessing(20, 5, 5), right, delta, confidence)


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (10, 10), (3, 10), (61, 100)])
def test_intervals_are_scipy_s(successes: int, trials: int) -> None:
    expected = binomtest(successes, trials).proportion_ci(0.95, method="exact")
    assert clopper_pearson(successes, trials) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(("successes", "trials"), [(-1, 5), (6, 5), (0, 0)])
def test_proportions_out_of_range(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match="successes"):
        clopper_pearson(successes, trials)
    with pytest.raises(ValueError, match="confidence"):
        clopper_pearson(1, 2, confidence=1.0)


def test_the_area_is_scipy_s_mann_whitney() -> None:
    generator = torch.Generator().manual_seed(6)
    joined = torch.randint(9, (40,), generator=generator).float() + 1  # with many ties
    left_out = torch.randint(9, (25,), generator=generator).float()
    expected = mannwhitneyu(joined.numpy(), left_out.numpy()).statistic / (40 * 25)
    assert area_under_curve(joined, left_out) == pytest.approx(expected)
    with pytest.raises(ValueError, match="either side"):
        area_under_curve(joined, left_out[:0])
