"""The bandit's findings, on seeds no setting was chosen on, and its divergences against autograd.

Thresholds are those that a second implementation of the paper's bandit kept with room to spare.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from wardround.client.tasks.preference.losses import LossSettings
from wardround.study.bench.bandit import (
    Recipe,
    follow_divergence,
    learn,
    optimal_policy,
    ordered_pairs,
    reference_policy,
    reward_of,
)
from wardround.study.bench.bandit_figures import write_figures
from wardround.study.bench.bandit_study import RECIPES, final_rewards

SEEDS = (7101, 7102, 7103)


def exact_reference() -> Tensor:
    """What the histogram tends to: the Cauchy distribution's mass in each bin, smoothed alike."""
    edges = torch.linspace(-1, 1, 101, dtype=torch.float64)
    below = torch.atan((torch.atanh(edges) + 0.7) / 0.4) / math.pi + 0.5
    return (10_000 * (below[1:] - below[:-1]) + 1) / 10_100


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_the_reference_is_the_recipes_distribution() -> None:
    """Within five deviations of 10 000 draws in every bin: false alarms below 1e-4."""
    expected = exact_reference()
    found = reference_policy(torch.Generator().manual_seed(SEEDS[0]))
    deviation = (expected / 10_000).sqrt()
    assert float(((found - expected).abs() / deviation).max()) < 5
    assert float(found.sum()) == pytest.approx(1)


def test_the_reference_favours_one_peak() -> None:
    """Published by the second implementation: 0.046 and 0.454 of the mass, 0.039 and 0.377."""
    reference = exact_reference()
    assert float(reference[60:81].sum()) == pytest.approx(0.046, abs=0.005)
    assert float(reference[10:31].sum()) == pytest.approx(0.454, abs=0.005)
    assert float(reference @ reward_of("R1")) == pytest.approx(0.039, abs=0.005)
    assert float(reference @ reward_of("R2")) == pytest.approx(0.377, abs=0.005)


def test_pairs_are_all_pairs_of_a_row_that_lie_apart() -> None:
    reward = torch.tensor([0.0, 0.1, 0.5, 1.0], dtype=torch.float64)
    better, worse = ordered_pairs(reward, torch.tensor([[0, 3, 1], [2, 2, 0]]), 0.2)
    assert list(zip(better.tolist(), worse.tolist(), strict=True)) == [
        (3, 0),
        (3, 1),
        (2, 0),
        (2, 0),
    ]
    assert len(ordered_pairs(reward, torch.tensor([[2, 2]]), 0.0)[0]) == 0


def test_a_batch_without_pairs_teaches_nothing() -> None:
    reference, flat = exact_reference(), torch.zeros(100, dtype=torch.float64)
    course = learn(reference, flat, Recipe("dpo", steps=3), torch.Generator().manual_seed(1))
    assert torch.allclose(course.policy, reference)


def test_the_first_step_follows_the_loss_on_log_probabilities() -> None:
    """Oracle: Adam's first step is the sign of the gradient times the learning rate, and the
    gradient of DPO at the reference is beta / 2 (softmax parts of better and worse cancel)."""
    reference, reward = exact_reference(), reward_of("R2")
    recipe = Recipe("dpo", steps=1, prompts=1, replies=2, loss=LossSettings(beta=0.1))
    course = learn(reference, reward, recipe, torch.Generator().manual_seed(3))
    moved = course.policy.log() - reference.log()
    moved = moved - moved.median()
    drawn = torch.multinomial(
        reference, 2, replacement=True, generator=torch.Generator().manual_seed(3)
    )
    better, worse = ordered_pairs(reward, drawn[None], 0.0)
    assert float(moved[better]) == pytest.approx(0.05, rel=1e-3)
    assert float(moved[worse]) == pytest.approx(-0.05, rel=1e-3)
    assert int((moved.abs() > 1e-6).sum()) == 2


@pytest.mark.parametrize("reverse", [False, True])
def test_divergences_descend_their_own_gradient(reverse: bool) -> None:
    """Oracle: the same descent with autograd on the divergence itself."""
    reference, reward = exact_reference(), reward_of("R1")
    target = optimal_policy(reference, reward, 0.1)
    logits = reference.log().requires_grad_()
    for _ in range(5):
        policy, log_policy = logits.softmax(0), logits.log_softmax(0)
        forward = (target * (target.log() - log_policy)).sum()
        divergence = (policy * (log_policy - target.log())).sum() if reverse else forward
        (gradient,) = torch.autograd.grad(divergence, logits)
        logits = (logits - gradient).detach().requires_grad_()
    found = follow_divergence(reference, target, reward, reverse, 5)
    assert float(found[-1]) == pytest.approx(float(logits.detach().softmax(0) @ reward), rel=1e-12)


def test_reverse_divergence_is_slower_first_and_faster_later() -> None:
    """F6. The second implementation's values, from another histogram of the same recipe: a
    histogram of 10 000 draws moves them by up to 0.004 below the exact distribution's, more near
    step 100, where they rise fastest."""
    reference, reward = exact_reference(), reward_of("R1")
    target = optimal_policy(reference, reward, 0.1)
    forward = follow_divergence(reference, target, reward, False, 2000)
    reverse = follow_divergence(reference, target, reward, True, 2000)
    published = {
        1: (0.0423, 0.0403),
        10: (0.0910, 0.0500),
        100: (0.8075, 0.9139),
        500: (0.9185, 0.9398),
        1000: (0.9307, 0.9404),
        2000: (0.9368, 0.9406),
    }
    for step, (one, other) in published.items():
        assert float(forward[step]) == pytest.approx(one, abs=0.004)
        assert float(reverse[step]) == pytest.approx(other, abs=0.004)
    assert reverse[100] > forward[100] + 0.05
    assert reverse[500] > forward[500]
    assert reverse[10] < forward[10]


@pytest.mark.slow
@pytest.mark.statistical
def test_on_policy_beats_offline_where_the_reference_hardly_goes() -> None:
    """F1 for best-of-n: 0.92 against 0.22, deviations 0.11 and 0.06; asserted with room for 3."""
    offline = RECIPES["best-of-n"]
    off, on = (mean(final_rewards("R1", replace(offline, reuse=reuse), SEEDS)) for reuse in (0, 15))
    assert on > off + 0.3


@pytest.mark.slow
@pytest.mark.statistical
def test_negative_gradients_help_only_where_the_reference_hardly_goes() -> None:
    """F3 against best-of-n alone, and only with pairs left out that nearly tie: 0.70 and 0.67
    against 0.27 on R1, deviations up to 0.03; at most level on R2."""

    def reward(name: str, method: str, gap: float = 0.0) -> float:
        recipe = replace(RECIPES[method], steps=200, prompts=100, least_gap=gap)
        return mean(final_rewards(name, recipe, SEEDS))

    one, two = reward("R1", "best-of-n"), reward("R2", "best-of-n")
    for method in ("ipo", "dpo"):
        assert reward("R1", method, 0.2) > one + 0.1, method
        assert reward("R2", method, 0.2) < two + 0.05, method
    # The limits of the finding, kept in sight: without the gap there is none, and a sharp
    # regression without any negative gradient does better still.
    assert reward("R1", "dpo") < one
    assert reward("R1", "reward-weighted 0.1") > reward("R1", "ipo", 0.2)


def test_figures_are_png_files(tmp_path: Path) -> None:
    """The tables cut to the rows the figures need; the signature is PNG's own."""
    spread = {"mean": 0.5, "sd": 0.1}
    document = {
        "on_policy": [
            {"reward": reward, "method": "dpo", "sampling": way, "curve": [0.1, 0.2], **spread}
            for reward in ("R1", "R2")
            for way in ("on", "off")
        ],
        "negative_gradient": [
            {"reward": reward, "prompts": 100, "method": "dpo", "least_gap": 0.2, **spread}
            for reward in ("R1", "R2")
        ],
        "reuse": [{"method": "ipo", "reuse": reuse, **spread} for reuse in (1, 300)],
        "divergence": [{"step": step, "forward": spread, "reverse": spread} for step in (1, 9)],
    }
    paths = write_figures(document, tmp_path / "figures")
    assert len(paths) == 4
    assert all(path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n") for path in paths)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"steps": 0}, "steps is 0"), ({"reuse": -1}, "reuse is -1"), ({"least_gap": -0.1}, "-0.1")],
)
def test_recipes_that_cannot_be_followed_are_refused(
    change: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        replace(Recipe("dpo"), **change)  # type: ignore[arg-type]
