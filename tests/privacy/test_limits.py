"""The most an attack can reach: closed forms, other people's figures and brute force."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import norm

from wardround.privacy.accountant import epsilon
from wardround.privacy.events import Gaussian, Repeated
from wardround.privacy.limits import (
    gaussian_mu,
    most_area,
    most_exposure,
    most_true_positives,
    mu_of_epsilon,
)


def test_steps_and_copies() -> None:
    assert gaussian_mu(20.0, 100) == 0.5
    assert gaussian_mu(20.0, 100, copies=4) == 2.0
    assert gaussian_mu(0.0, 100) == math.inf


@pytest.mark.parametrize(("noise", "steps"), [(1.0, 1), (4.0, 20), (2.0, 1), (30.0, 9)])
def test_mu_and_the_accountant_speak_of_the_same_mechanism(noise: float, steps: int) -> None:
    """The oracle is the accountant; its loss distribution is rounded up, so it is never below."""
    accounted = epsilon(Repeated(Gaussian(noise), steps), 1e-5)
    mu = gaussian_mu(noise, steps)
    assert mu <= mu_of_epsilon(accounted, 1e-5) <= mu * 1.002


@pytest.mark.parametrize(("eps", "delta"), [(0.01, 1e-9), (1.0, 1e-5), (50.0, 0.1), (1e-3, 0.9)])
def test_mu_gives_back_its_delta(eps: float, delta: float) -> None:
    """Balle and Wang (2018), theorem 8, forwards."""
    mu = mu_of_epsilon(eps, delta)
    forwards = norm.cdf(mu / 2 - eps / mu) - math.exp(eps) * norm.cdf(-mu / 2 - eps / mu)
    assert forwards == pytest.approx(delta, rel=1e-6)


@pytest.mark.parametrize(
    ("eps", "delta", "name"),
    [(0, 0.1, "epsilon"), (math.inf, 0.1, "epsilon"), (1, 0, "delta"), (1, 1, "delta")],
)
def test_no_mu_for_nonsense(eps: float, delta: float, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        mu_of_epsilon(eps, delta)


def test_true_positives_of_two_normals() -> None:
    """The likelihood-ratio test between N(0, 1) and N(mu, 1) is a threshold."""
    for rate, mu in ((0.001, 2.0), (0.01, 1.0), (0.5, 0.3)):
        assert most_true_positives(rate, mu) == pytest.approx(norm.sf(norm.isf(rate) - mu))
    assert most_true_positives(0.01, math.inf) == 1.0
    assert most_true_positives(0.01, 0.0) == pytest.approx(0.01)
    for rate in (0, 1):
        with pytest.raises(ValueError, match="false_positives"):
            most_true_positives(rate, 1.0)


def test_area_is_the_integral_of_the_true_positives() -> None:
    rates = [(i + 0.5) / 20_000 for i in range(20_000)]
    for mu in (0.0, 0.5, 2.0):
        integral = sum(most_true_positives(rate, mu) for rate in rates) / len(rates)
        assert most_area(mu) == pytest.approx(integral, abs=1e-4)
    assert most_area(math.inf) == 1.0


def test_exposure_of_a_random_rank_and_of_certainty() -> None:
    """Closed form at mu 0: log2 N - log2(N!) / N, which tends to log2 e = 1.4427."""
    n = 10_000
    assert most_exposure(n, 0.0) == pytest.approx(
        math.log2(n) - math.lgamma(n + 1) / math.log(2) / n
    )
    assert most_exposure(n, 0.0) == pytest.approx(math.log2(math.e), abs=2e-3)
    assert most_exposure(n, math.inf) == pytest.approx(math.log2(n))


@pytest.mark.statistical
def test_exposure_of_the_best_attack_on_one_normal_number_each() -> None:
    """Brute force: the true candidate's score is N(mu, 1), all others' N(0, 1), rank by score.

    20,000 draws, seed 1; a tolerance of 6 standard errors is exceeded with a chance of 2e-9. That
    attack sees one score a candidate, so for many candidates it reaches the limit.
    """
    n, mu = 200, 1.5
    generator = torch.Generator().manual_seed(1)
    others = torch.randn((20_000, n - 1), generator=generator)
    true = torch.randn((20_000, 1), generator=generator) + mu
    exposure = math.log2(n) - (1 + (others > true).sum(1)).double().log2()
    error = float(exposure.std()) / math.sqrt(20_000)
    limit = most_exposure(n, mu)
    assert float(exposure.mean()) <= limit + 6 * error
    assert float(exposure.mean()) == pytest.approx(limit, abs=6 * error + 0.02)
