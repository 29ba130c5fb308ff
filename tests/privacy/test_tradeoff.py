"""What attackers can reach, against closed forms."""

from __future__ import annotations

import math

import pytest
from scipy.stats import norm

from wardround.privacy.accountant import epsilon
from wardround.privacy.events import (
    NOTHING,
    Gaussian,
    PoissonSampled,
    RandomisedResponse,
    Repeated,
    Unprotected,
)
from wardround.privacy.tradeoff import risk_figures, trade_off


@pytest.mark.parametrize("mu", [0.3, 1.0, 2.5])
def test_gaussian_noise_equals_its_closed_form_from_above(mu):
    """Dong, Roth and Su (2022), equation 6: true positives Phi(Phi^-1(alpha) + mu)."""
    curve = trade_off(Gaussian(1 / mu))
    for alpha in (0.001, 0.01, 0.1, 0.5, 0.9):
        exact = norm.cdf(norm.ppf(alpha) + mu)
        assert exact <= curve.most_true_positives(alpha) <= exact * 1.005 + 1e-4
    area = norm.cdf(mu / math.sqrt(2))
    assert area <= curve.most_area() <= area + 2e-3


def test_randomised_response_equals_its_closed_form():
    """Pure epsilon: true positives min(e^eps alpha, 1 - e^-eps (1 - alpha)), Kairouz (2015)."""
    event = RandomisedResponse(0.5, 2)  # epsilon ln 3
    curve = trade_off(event)
    for alpha in (0.001, 0.1, 0.25, 0.6):
        exact = min(3 * alpha, 1 - (1 - alpha) / 3)
        assert exact <= curve.most_true_positives(alpha) <= exact * 1.005


def test_the_ends_of_the_scale():
    assert trade_off(NOTHING).most_true_positives(0.01) == pytest.approx(0.01)
    assert trade_off(NOTHING).most_area() == pytest.approx(0.5, abs=1e-3)
    assert trade_off(Unprotected()).most_true_positives(0.01) == 1.0
    assert trade_off(Unprotected()).most_area() == pytest.approx(1.0)
    assert trade_off(Gaussian(0.01)).most_true_positives(0.001) == 1.0
    for rate in (0.0, 1.1):
        with pytest.raises(ValueError, match="it must lie in"):
            trade_off(NOTHING).most_true_positives(rate)


def test_the_figures_hang_together():
    event = Repeated(PoissonSampled(0.05, Gaussian(2.0)), 100)
    figures = risk_figures(event, 1e-5, persons=(1, 3))
    document = figures.to_json()
    epsilons = [point["epsilon"] for point in document["curve"]]
    assert epsilons == sorted(epsilons)
    assert epsilons[2] == pytest.approx(epsilon(event, 1e-5), abs=2e-3)
    rates = [row["true_positives"] for row in document["most_true_positives"]]
    assert rates == sorted(rates)
    # Epsilon and delta bound the same attack: e^eps alpha + delta.
    assert rates[0] <= math.exp(epsilon(event, 1e-5)) * 0.001 + 1e-5 + 1e-6
    one, three = document["persons"]
    assert one["epsilon"] < three["epsilon"]
    assert one["most_true_positives_at_1_percent"] < three["most_true_positives_at_1_percent"]
    assert 0.5 < document["most_area_under_curve"] < 1


def test_without_protection_the_figures_say_so():
    document = risk_figures(Unprotected(), 1e-5, persons=(1,)).to_json()
    assert document["curve"][0]["epsilon"] is None
    assert document["persons"][0]["epsilon"] is None
    assert document["most_true_positives"][0]["true_positives"] == 1.0
