"""Which units to plant, and what a sum says about who took part."""

from __future__ import annotations

import math

import pytest
import torch

from wardround.privacy.audit import area_under_curve
from wardround.privacy.canaries import evidence, most_distinct, seen_deviation


def test_long_and_different_gradients_come_first() -> None:
    """By hand: the longest; then the one with most beside it; a copy and a zero are left over."""
    gradients = torch.tensor([[3.0, 0.0, 0.0], [2.9, 0.5, 0.0], [0.0, 0.0, 2.0], [3.0, 0.0, 0.0]])
    assert most_distinct(gradients, 4) == [0, 2, 1]
    assert most_distinct(gradients, 2) == [0, 2]
    assert most_distinct(torch.zeros(0, 3), 2) == []
    assert most_distinct(torch.zeros(2, 3), 2) == []


def test_the_choice_is_that_of_pivoted_orthogonalisation() -> None:
    """The oracle projects every gradient off those already chosen, one after the other."""
    generator = torch.Generator().manual_seed(1)
    gradients = torch.randn((30, 12), generator=generator, dtype=torch.float64)
    left, expected = gradients.clone(), []
    for _ in range(10):
        best = int(left.norm(dim=1).argmax())
        expected.append(best)
        direction = left[best] / left[best].norm()
        left = left - torch.outer(left @ direction, direction)
    assert most_distinct(gradients, 10) == expected


def test_without_noise_the_sum_names_its_members() -> None:
    generator = torch.Generator().manual_seed(2)
    gradients = torch.randn((40, 90), generator=generator)
    members = torch.rand(40, generator=generator) < 0.3
    ratios = evidence(members.float() @ gradients, gradients, 30, 0.3, 0.0)
    assert torch.equal(ratios > 0, members[:30])
    # One that was not sampled speaks against being there by no more than ln(1 - rate).
    assert float(ratios[~members[:30]].max()) == pytest.approx(math.log(0.7), abs=1e-6)


def test_of_one_canary_alone_the_ratio_is_that_of_two_densities() -> None:
    """The oracle: (1 - q) N(y; 0, s²) + q N(y; g, s²) over N(y; 0, s²), by coordinate."""
    generator = torch.Generator().manual_seed(3)
    gradient = torch.randn((1, 9), generator=generator, dtype=torch.float64)
    total = torch.randn(9, generator=generator, dtype=torch.float64)
    for rate in (0.1, 0.7, 1.0):
        absent, present = (
            torch.distributions.Normal(mean, 2.0).log_prob(total).sum()
            for mean in (torch.zeros(9, dtype=torch.float64), gradient[0])
        )
        expected = math.log(1 - rate + rate * math.exp(float(present - absent)))
        assert float(evidence(total, gradient, 1, rate, 2.0)) == pytest.approx(expected)


def test_others_are_taken_for_normal_numbers() -> None:
    """The oracle writes the two normal densities of the whole sum, covariance and all."""
    generator = torch.Generator().manual_seed(4)
    gradients = torch.randn((5, 7), generator=generator, dtype=torch.float64)
    total = torch.randn(7, generator=generator, dtype=torch.float64)
    ratios = evidence(total, gradients, 3, 0.4, 1.5)
    prior = torch.tensor([0.2, 0.2, 0.2, 0.4, 0.4], dtype=torch.float64)
    for canary in range(3):
        others = [unit for unit in range(5) if unit != canary]
        mean = prior[others] @ gradients[others]
        spread = torch.diag((prior * (1 - prior))[others])
        covariance = gradients[others].T @ spread @ gradients[others]
        covariance += 1.5**2 * torch.eye(7, dtype=torch.float64)
        absent, present = (
            torch.distributions.MultivariateNormal(centre, covariance).log_prob(total)
            for centre in (mean, mean + gradients[canary])
        )
        expected = math.log(0.6 + 0.4 * math.exp(float(present - absent)))
        assert float(ratios[canary]) == pytest.approx(expected)


@pytest.mark.statistical
def test_the_more_noise_the_less_evidence() -> None:
    generator = torch.Generator().manual_seed(5)
    gradients = torch.randn((200, 400), generator=generator)
    gradients = gradients / gradients.norm(dim=1, keepdim=True)
    coins = torch.rand(200, generator=generator) < 0.5
    areas = []
    for noise in (0.1, 1.0, 50.0):
        total = coins.float() @ gradients + noise * torch.randn(400, generator=generator)
        ratios = evidence(total, gradients, 200, 1.0, noise)
        areas.append(area_under_curve(ratios[coins], ratios[~coins]))
    assert areas[0] > 0.99
    # At noise 1 nobody does better than Phi(1 / sqrt 2) = 0.76; 3 standard errors are 0.1.
    assert 0.6 < areas[1] < 0.86
    assert areas[2] < 0.62


@pytest.mark.statistical
@pytest.mark.parametrize("deviation", [0.0, 0.2, 5.0])
def test_the_noise_is_seen_whatever_was_claimed(deviation: float) -> None:
    """2950 free coordinates, seed 5: 6 standard errors of a deviation are 6 / sqrt(2 n)."""
    generator = torch.Generator().manual_seed(5)
    gradients = torch.randn((50, 3000), generator=generator)
    gradients[7] = gradients[3]  # equal units explain one direction together
    noise = torch.randn(3000, generator=generator)
    total = gradients[:20].sum(0) + deviation * noise
    seen = seen_deviation(total, gradients)
    assert seen == pytest.approx(deviation, rel=6 / (2 * 2950) ** 0.5, abs=0.02)


def test_more_units_than_parameters_explain_everything() -> None:
    with pytest.raises(ValueError, match="4 units"):
        seen_deviation(torch.zeros(4), torch.zeros(4, 4))
