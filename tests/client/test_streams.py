"""Streams: a seed repeats what protects nobody, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from wardround.client.streams import Streams
from wardround.privacy.plan import Mode, PrivacyPlan, RoundPlan
from wardround.privacy.units import Unit

PRIVATE = PrivacyPlan(Unit.RECORD, 1.0, 1.0, 0.1, 2, 6.0)
PLAN = RoundPlan("s", "r", 1, 4, "north", "t", "fedavg", "b", "0" * 64, "0" * 64, PRIVATE)
BARE = replace(PLAN, privacy=replace(PRIVATE, mode=Mode.NONE, noise_multiplier=0.0))


def draws(seed: int | None, plan: RoundPlan) -> list[int]:
    return [int(word) for word in Streams(seed)(plan).words(4)]


def test_a_seed_repeats_a_round_of_mode_none() -> None:
    assert draws(7, BARE) == draws(7, BARE)
    assert draws(7, BARE) == draws(7, replace(BARE, run="another", arrays_sha256="1" * 64))


@pytest.mark.parametrize("other", [{"hospital": "south"}, {"round": 2}])
def test_rounds_and_hospitals_draw_apart(other: dict[str, Any]) -> None:
    assert draws(7, BARE) != draws(7, replace(BARE, **other))
    assert draws(7, BARE) != draws(8, BARE)


@pytest.mark.parametrize(("seed", "plan"), [(7, PLAN), (None, PLAN), (None, BARE)])
def test_nothing_else_can_be_repeated(seed: int | None, plan: RoundPlan) -> None:
    """256 random bits agree by chance with probability 1e-77."""
    assert draws(seed, plan) != draws(seed, plan)
