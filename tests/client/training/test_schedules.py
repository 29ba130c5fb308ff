"""Schedules: against transformers' own after the warm-up, and never a step of rate zero."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from torch import nn

from wardround.client.schedules import Per, Schedule, Shape


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_equals_transformers_after_the_warm_up(shape: str) -> None:
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs: Any = get_scheduler(shape, optimizer, num_warmup_steps=4, num_training_steps=20)
    expected = []
    for _ in range(20):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    schedule = Schedule(Shape(shape), warmup=4)
    ours = [schedule.factor(n, 4, step, 5) for n in range(1, 5) for step in range(1, 6)]
    assert ours[4:] == pytest.approx(expected[4:], abs=1e-12)
    # Theirs starts at 0, which would be a step that does nothing; ours one part later.
    assert ours[:4] == [0.25, 0.5, 0.75, 1.0]


@given(
    shape=some.sampled_from(Shape),
    per=some.sampled_from(Per),
    warmup=some.integers(0, 12),
    floor=some.floats(0, 1),
    rounds=some.integers(1, 6),
    steps=some.integers(1, 5),
)
def test_factors_are_positive_and_fall(
    shape: Shape, per: Per, warmup: int, floor: float, rounds: int, steps: int
) -> None:
    schedule = Schedule(shape, per, warmup, floor)
    found = [
        [schedule.factor(n, rounds, step, steps) for step in range(1, steps + 1)]
        for n in range(1, rounds + 1)
    ]
    flat = [factor for row in found for factor in row]
    assert all(0 < factor <= 1 for factor in flat)
    assert all(factor >= floor for factor in flat[warmup * (steps if per is Per.ROUND else 1) :])
    if per is Per.ROUND:
        assert all(len(set(row)) == 1 for row in found)
    if warmup == 0:
        assert flat[0] == 1.0
        assert flat == sorted(flat, reverse=True)


def test_a_floor_is_approached() -> None:
    assert Schedule(Shape.LINEAR, floor=0.2).factor(1, 1, 4, 4) == pytest.approx(0.2 + 0.8 / 4)


@pytest.mark.parametrize(
    ("field", "value"), [("warmup", -1), ("floor", 1.5), ("floor", -0.1), ("warmup_share", 2.0)]
)
def test_settings_name_field_value_and_bound(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{field} is {value}; it must"):
        Schedule(**{field: value})
