"""Optimizers against torch's own, the bias correction against its closed form, moments kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wardround.client.optimizers import Descent, OptimizerConfig
from wardround.privacy.tables import from_table

START = {"a": torch.tensor([[0.5, -1.0], [2.0, 0.25]]), "b": torch.tensor([3.0])}
OURS: dict[str, tuple[dict[str, Any], type[torch.optim.Optimizer], dict[str, Any]]] = {
    "sgd": ({}, torch.optim.SGD, {}),
    "sgd, momentum and decay": (
        {"momentum": 0.9, "weight_decay": 0.1},
        torch.optim.SGD,
        {"momentum": 0.9, "weight_decay": 0.1},
    ),
    "adam": ({"damping": 1e-4}, torch.optim.Adam, {"eps": 1e-4, "betas": (0.9, 0.99)}),
    "adam with decay": (
        {"beta1": 0.8, "beta2": 0.95, "weight_decay": 0.1},
        torch.optim.Adam,
        {"eps": 3e-4, "betas": (0.8, 0.95), "weight_decay": 0.1},
    ),
    "adamw": (
        {"weight_decay": 0.3},
        torch.optim.AdamW,
        {"eps": 3e-4, "betas": (0.9, 0.99), "weight_decay": 0.3},
    ),
}


def parameters() -> dict[str, nn.Parameter]:
    return {name: nn.Parameter(array.clone()) for name, array in START.items()}


def gradients(steps: int) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(4)
    return [{n: torch.randn(a.shape, generator=generator) for n, a in START.items()}
            for _ in range(steps)]  # fmt: skip


def config(name: str, **changes: Any) -> OptimizerConfig:
    table = {"learning_rate": 0.05, "optimizer": name.split(",")[0].split(" ")[0]}
    return from_table(OptimizerConfig, table | changes, "t")


@pytest.mark.parametrize("name", OURS)
def test_equals_torch(name: str) -> None:
    """float32: 20 steps of a few roundings each on values near 1, so 1e-5 is ample."""
    settings, kind, theirs = OURS[name]
    ours, oracle = parameters(), parameters()
    descent = Descent(config(name, **settings), ours)
    other = kind(list(oracle.values()), lr=0.05, **theirs)
    for gradient in gradients(20):
        values = descent.step(gradient, 1.0, noise_deviation=0.7)
        for key, parameter in oracle.items():
            parameter.grad = gradient[key].clone()
        other.step()
    for key, parameter in oracle.items():
        torch.testing.assert_close(values[key], parameter.detach(), rtol=1e-5, atol=1e-6)
        assert torch.equal(ours[key].detach(), values[key])


def test_the_schedule_s_factor_scales_the_rate() -> None:
    half, full = parameters(), parameters()
    (gradient,) = gradients(1)
    Descent(config("sgd"), half).step(gradient, 0.5, 0.0)
    Descent(config("sgd", learning_rate=0.025), full).step(gradient, 1.0, 0.0)
    for name in START:
        assert torch.equal(half[name], full[name])


# --- DP-AdamBC ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("slope", "deviation"), [(0.5, 0.3), (0.5, 0.0), (0.1, 0.3)])
def test_first_step_in_closed_form(slope: float, deviation: float) -> None:
    """After one step both corrected moments are g and g^2, so the step is g / sqrt(g^2 - s^2).

    Where the noise is all there is (0.1 against 0.3) the denominator is the damping.
    """
    damping = 0.01
    moved = parameters()
    adam = config("adam", dp_bias_correction=True, damping=damping)
    gradient = {name: torch.full_like(array, slope) for name, array in START.items()}
    Descent(adam, moved).step(gradient, 1.0, deviation)
    expected = 0.05 * slope / max(slope**2 - deviation**2, damping**2) ** 0.5
    for name, array in START.items():
        torch.testing.assert_close(array - moved[name].detach(), torch.full_like(array, expected),
                                   rtol=1e-4, atol=1e-6)  # fmt: skip


def test_changing_noise_is_weighed_as_the_squares_are() -> None:
    """Two steps with noise s1, then s2: v and the correction carry weights b2(1-b2) and 1-b2.

    With betas of one half both corrected moments are (g1 + 2 g2) / 3 and (g1^2 + 2 g2^2) / 3.
    """
    moved = {"a": nn.Parameter(torch.zeros(1))}
    adam = config("adam", dp_bias_correction=True, beta1=0.5, beta2=0.5)
    descent = Descent(adam, moved)
    first = float(descent.step({"a": torch.tensor([2.0])}, 1.0, 0.5)["a"])
    second = float(descent.step({"a": torch.tensor([1.0])}, 1.0, 0.1)["a"])
    assert first == pytest.approx(-0.05 * 2 / (4 - 0.25) ** 0.5, rel=1e-5)
    variance = (0.5**2 + 2 * 0.1**2) / 3
    expected = -0.05 * (4 / 3) / (6 / 3 - variance) ** 0.5
    assert second - first == pytest.approx(expected, rel=1e-5)


@pytest.mark.statistical
def test_noise_no_longer_scales_the_step() -> None:
    """Gradient 0.1 under noise 1: plain Adam moves by about 0.1 of the rate, corrected by about 1.

    Tang et al. (2023), section 3. Over 4000 coordinates the mean of plain Adam's moves is known to
    2 %, because the noise of a coordinate's 300 steps is 0.6 of its move. The corrected second
    moment, 0.01, is blurred by 0.03 a coordinate, so only the order of magnitude is asked for.
    """
    moves = {}
    for corrected in (False, True):
        moved = {"a": nn.Parameter(torch.zeros(4000))}
        adam = config(
            "adam", learning_rate=1e-3, dp_bias_correction=corrected, damping=0.05, beta2=0.999
        )
        descent = Descent(adam, moved)
        generator = torch.Generator().manual_seed(9)
        for _ in range(300):
            noise = torch.randn(4000, generator=generator)
            values = descent.step({"a": 0.1 + noise}, 1.0, 1.0)
        moves[corrected] = -float(values["a"].mean()) / 0.3
    assert moves[False] == pytest.approx(0.1, rel=0.2)
    assert moves[True] > 5 * moves[False]


# --- moments ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OURS)
def test_going_on_with_moments_is_going_on(name: str) -> None:
    settings = config(name, **OURS[name][0])
    if name.startswith("adam"):
        settings = replace(settings, dp_bias_correction=True)
    whole, parts = parameters(), parameters()
    once, first = Descent(settings, whole), Descent(settings, parts)
    for gradient in gradients(6):
        once.step(gradient, 1.0, 0.2)
    for gradient in gradients(6)[:3]:
        first.step(gradient, 1.0, 0.2)
    second = Descent(settings, parts, first.moments())
    for gradient in gradients(6)[3:]:
        second.step(gradient, 1.0, 0.2)
    for key in START:
        assert torch.equal(whole[key], parts[key])


def test_what_does_not_move_in_a_step_is_left_alone() -> None:
    """As torch does with a parameter that has no gradient: no decay, no count, no momentum."""
    settings = config("adamw", weight_decay=0.3, dp_bias_correction=True)
    together, apart = parameters(), parameters()
    taking_turns = Descent(settings, together)
    alone = {name: Descent(settings, {name: p}) for name, p in apart.items()}
    for number, gradient in enumerate(gradients(8)):
        name = "ab"[number % 2]
        part = {name: gradient[name]}
        values = taking_turns.step(part, 1.0, 0.2)
        alone[name].step(part, 1.0, 0.2)
        assert values.keys() == START.keys()
    for name in START:
        assert torch.equal(together[name], apart[name])


def test_moments_of_other_parameters_wait_and_those_of_another_shape_are_dropped() -> None:
    """Arrays that train in every other round find their own moments again."""
    settings, (gradient,) = config("adam"), gradients(1)
    moved = parameters()
    first = Descent(settings, {"a": moved["a"]})
    first.step({"a": gradient["a"]}, 1.0, 0.5)
    second = Descent(settings, {"b": moved["b"]}, first.moments())
    second.step({"b": gradient["b"]}, 1.0, 0.5)
    both = second.moments()
    assert both.steps == {"a": 1, "b": 1}
    torch.testing.assert_close(both.arrays["first/a"], 0.1 * gradient["a"])
    torch.testing.assert_close(both.arrays["second/b"], 0.01 * gradient["b"].square())
    wider = Descent(settings, {"a": nn.Parameter(torch.zeros(5))}, both).moments()
    assert wider.steps == {"a": 0, "b": 1}
    assert not wider.arrays["first/a"].any()


def test_short_types_lose_no_small_steps() -> None:
    """bfloat16 keeps 8 bits: a step of 1e-3 from 1.0 would vanish if it were rounded each time."""
    moved = {"a": nn.Parameter(torch.ones(1, dtype=torch.bfloat16))}
    descent = Descent(config("sgd", learning_rate=1e-3), moved)
    for _ in range(20):
        values = descent.step({"a": torch.ones(1)}, 1.0, 0.0)
    assert float(values["a"]) == pytest.approx(0.98, rel=1e-5)
    assert float(moved["a"].detach()) == pytest.approx(0.98, rel=2**-8)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"weight_decay": -0.1}, "weight_decay is -0.1; it must be 0 or more"),
        ({"optimizer": "sgd", "dp_bias_correction": True}, "sgd has no second moment"),
        ({"beta2": 1.0}, r"beta2 is 1.0; it must lie in \[0, 1\)"),
        ({"damping": 0.0}, "damping is 0.0"),
        ({"learning_rate": float("inf")}, "learning_rate is inf"),
    ],
)
def test_settings_name_field_value_and_bound(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(Exception, match=says):
        config("adam", **settings)
