"""Scale and rank sets from arrays made by hand, as the released code makes them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wardround.client.tasks.editing.anatomy import Kind
from wardround.client.tasks.editing.scales import (
    Normalisation,
    Rule,
    ScaleConfig,
    alpha_set,
    factors,
    mean_profiles,
    normalised,
    rank_set,
)
from wardround.client.tasks.editing.tracing import Trace

PROFILE = torch.tensor([1.0, 3.0, 5.0, 2.0], dtype=torch.float64) / 10
# Two restored tokens whose mean over tokens is PROFILE.
TOKENS = torch.stack([PROFILE - 0.05, PROFILE + 0.05])
RANKS = {Kind.MLP: [12, 12, 24, 12], Kind.ATTENTION: [24, 24, 24, 24]}


def traced(mlp=TOKENS, attention=None):
    attention = TOKENS.flip(1) if attention is None else attention
    return Trace(7, 0.9, 0.05, (1, 2), {Kind.MLP: mlp, Kind.ATTENTION: attention})


def test_min_max_alphas_and_ranks_are_the_released_rule():
    # By hand: (v - .1) / .4 = 0, .5, 1, .25. alpha0 32: 0, 16, 32, 8, clipped to [16, 64].
    # rank0 24: ceil 0, 12, 24, 6, clipped to [12, 48].
    scales = normalised(PROFILE, Normalisation.MIN_MAX)
    torch.testing.assert_close(scales, torch.tensor([0, 0.5, 1, 0.25], dtype=torch.float64))
    assert alpha_set(scales, 32).tolist() == [16, 16, 32, 16]
    assert rank_set(scales, 24) == [12, 12, 24, 12]


def test_mean_std_alphas_and_ranks_are_the_released_rule():
    # By hand for 1, 2, 3, 4: mean 2.5, deviation sqrt(1.25) = 1.118034; s = -0.341641, 0.552786,
    # 1.447214, 2.341641. alpha0 32: -10.93, 17.689, 46.311, 74.93, clipped to [16, 64]. rank0 24:
    # ceil -8, 14, 35, 57, clipped to [12, 48].
    scales = normalised(torch.tensor([1.0, 2.0, 3.0, 4.0]), Normalisation.MEAN_STD)
    assert alpha_set(scales, 32).tolist() == pytest.approx([16, 17.68916, 46.31084, 64], abs=1e-4)
    assert rank_set(scales, 24) == [12, 14, 35, 48]


def test_floor_divides_without_rest_and_rank_stays_positive():
    low = torch.zeros(1, dtype=torch.float64)
    assert alpha_set(low, 5.0).tolist() == [2.0]
    assert rank_set(low, 5) == [2]
    assert rank_set(low, 1) == [1]


def test_published_factors_are_alpha_over_alpha0():
    # PEFT multiplies by alpha0 / rank of the layer already; MLP alphas 16, 16, 32, 16 of 32.
    found = factors(traced(), ScaleConfig(Rule.PUBLISHED), 32, 24, RANKS)
    assert found[0].tolist() == pytest.approx([0.5, 0.5, 1.0, 0.5])
    assert found[1].tolist() == pytest.approx([0.5, 1.0, 0.5, 0.5])


def test_decoupled_multiplier_does_not_depend_on_the_rank():
    # alpha0 / rank_l * factor = alpha0 / rank0 * max(s, floor), by hand for floor 0.3.
    found = factors(traced(), ScaleConfig(Rule.DECOUPLED, floor=0.3), 32, 24, RANKS)
    for kind, wanted in ((0, [0.3, 0.5, 1, 0.3]), (1, [0.3, 1, 0.5, 0.3])):
        ranks = torch.tensor(RANKS[list(Kind)[kind]], dtype=torch.float64)
        multiplier = 32 / ranks * found[kind]
        assert multiplier.tolist() == pytest.approx([32 / 24 * value for value in wanted])


def test_rank_profile_is_the_mean_over_facts():
    other = traced(mlp=TOKENS + 0.2)
    found = mean_profiles([traced(), other])
    torch.testing.assert_close(found[Kind.MLP], PROFILE + 0.1)


@pytest.mark.parametrize("how", list(Normalisation))
def test_flat_profile_means_plain_lora(how):
    assert normalised(torch.full((4,), 0.3), how).tolist() == [1, 1, 1, 1]


@given(st.lists(st.floats(0, 1, allow_nan=False), min_size=2, max_size=12))
def test_factors_stay_within_the_published_band(values):
    profile = torch.tensor([values], dtype=torch.float64)
    config = ScaleConfig(Rule.PUBLISHED, Normalisation.MIN_MAX)
    ranks = {kind: [4] * len(values) for kind in Kind}
    found = factors(traced(profile, profile), config, 16, 4, ranks)
    assert bool(((found >= 0.5) & (found <= 1)).all())


def test_floor_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"floor is 1\.5; it must be between 0 and 1"):
        ScaleConfig(floor=1.5)
