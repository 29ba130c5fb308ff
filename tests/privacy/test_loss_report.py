"""Losses released beside gradients: bounded, noised, and paid for by one charge."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from wardround.privacy.adaptive import AdaptiveClip
from wardround.privacy.clipping import ClippedSum
from wardround.privacy.loss_report import LOSS, LossReport
from wardround.privacy.mechanisms import Mechanism, Mode, PrivacyPlan
from wardround.privacy.noise import add_joint_gaussian
from wardround.privacy.session import start_session
from wardround.privacy.units import Unit

PLAN = PrivacyPlan(
    unit=Unit.RECORD, clip_norm=1.0, noise_multiplier=1.0, sampling_rate=1.0, steps=1,
    expected_units=4.0, losses=LossReport(largest=2.0, noise_multiplier=5.0),
)  # fmt: skip
SHAPE = {"w": torch.Size((3,))}


def summed(losses):
    session = start_session(PLAN)
    total, told = session.clipped_sum(SHAPE), session.loss_sum()
    units = range(len(losses))
    total.add({"w": torch.zeros(len(losses), 3)}, units)
    told.add({LOSS: torch.tensor(losses, dtype=torch.float64)}, units)
    return total.close().beside(told.close())


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8))
@settings(max_examples=80, deadline=None)
def test_no_unit_moves_the_sum_by_more_than_the_bound(losses):
    whole, rest = summed(losses).losses, summed(losses[:-1]).losses
    assert abs(float(whole.value[LOSS] - rest.value[LOSS])) <= 2.0 + 1e-9
    # The broken twin, a plain sum, moves by whatever one unit's loss is.
    if abs(losses[-1]) > 2.01:
        assert abs(sum(losses) - sum(losses[:-1])) > 2.0


def test_losses_and_gradients_cost_what_the_plan_says(reserve, stream):
    paid = reserve(PLAN.event)
    noised = start_session(PLAN).privatise(summed([0.5, 0.7]), paid, stream)
    assert noised.event == PLAN.step_event
    assert noised.value.keys() == {"w", LOSS}
    plain = replace(PLAN, losses=None)
    assert PLAN.event == plain.event
    # 1/1 = 1/5^2 + 1/m^2: by hand m is 1.0206, and the gradients carry that much noise.
    assert PLAN.losses.gradient_multiplier(1.0) == pytest.approx(1.0206207)
    assert PLAN.noise_deviation == pytest.approx(plain.noise_deviation * 1.0206207)


def test_a_report_on_top_of_the_whole_noise_is_refused(reserve, stream):
    """The broken twin: gradients at the plan's own multiplier and losses for nothing."""
    clipped = summed([0.5])
    parts = [(clipped, 1.0), (clipped.losses, 5.0)]
    paid = reserve(PLAN.event)
    with pytest.raises(ValueError, match=r"the parts only give 0\.98"):
        add_joint_gaussian(parts, PLAN.step_event, 1.0, PLAN.adjacency, paid, stream)


@pytest.mark.statistical
def test_the_losses_noise_is_as_large_as_declared(reserve, stream):
    """5 times 2 on the sum, over 4 expected units: 2.5. False alarms below 1e-9."""
    many = replace(PLAN, steps=2000)
    session, paid = start_session(many), reserve(many.event)
    told = [float(session.privatise(summed([0.5]), paid, stream).value[LOSS]) for _ in range(2000)]
    assert stats.kstest(told, "norm", args=(0.5 / 4, 2.5)).pvalue > 1e-9


def test_losses_that_are_missing_or_cut_otherwise_are_refused(reserve, stream):
    session, paid = start_session(PLAN), reserve(PLAN.event)
    bare = session.clipped_sum(SHAPE)
    bare.add({"w": torch.zeros(1, 3)}, [0])
    clipped = bare.close()
    wide = ClippedSum({LOSS: torch.Size([])}, 9.0, Unit.RECORD)
    wide.add({LOSS: torch.tensor([8.0])}, [0])
    for wrong in (clipped, clipped.beside(wide.close())):
        with pytest.raises(ValueError, match="missing or cut to another bound"):
            session.privatise(wrong, paid, stream)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"losses": LossReport(1.0, 0.5)}, "must be greater than that"),
        ({"adaptive": AdaptiveClip()}, "without adaptive clipping"),
        ({"mode": Mode.NONE, "noise_multiplier": 0.0}, "mode local"),
        ({"mechanism": Mechanism.ONE_SHOT}, "with dp-sgd"),
    ],
)
def test_plans_that_cannot_release_losses_are_refused(change, what):
    with pytest.raises(ValueError, match=what):
        replace(PLAN, **change)


def test_bounds_are_named():
    with pytest.raises(ValueError, match="largest is 0"):
        LossReport(0.0)
