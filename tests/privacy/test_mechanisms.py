"""Mechanisms: what runs is what is accounted, for each of them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy import float32 as numpy_float32
from scipy import stats

from wardround.privacy.accountant import epsilon
from wardround.privacy.adaptive import AdaptiveClip
from wardround.privacy.clipping import ClippedSum, ClipRule
from wardround.privacy.errors import LedgerError
from wardround.privacy.events import Gaussian, PoissonSampled, Repeated, Unprotected
from wardround.privacy.mechanisms import Mechanism, Mode, PrivacyPlan
from wardround.privacy.noise import lattice_step
from wardround.privacy.reconstruction import clip_batch_gradient, effective_multiplier
from wardround.privacy.session import start_session
from wardround.privacy.units import Adjacency, Unit

ALARM = 1e-9
SITE = {"unit": Unit.SITE, "sampling_rate": 1.0, "expected_units": 1.0}
UPDATE = SITE | {"mechanism": Mechanism.WHOLE_UPDATE}
PAPER = {"mechanism": Mechanism.RECONSTRUCTION, "noise_multiplier": 2.0, "expected_units": 1.0}


def norm(arrays_by_name):
    return float(torch.cat([a.flatten() for a in arrays_by_name.values()]).norm())


# --- DP-SGD -------------------------------------------------------------------------------------


def test_a_step_is_the_noised_mean_by_the_public_denominator(make_privacy, reserve, stream):
    plan = make_privacy(clip_norm=2.0, noise_multiplier=0.001, steps=1)
    total = plan.clipped_sum({"w": torch.Size([2])})
    total.add({"w": torch.tensor([[1.0, 0.0], [30.0, 40.0]])}, [3, 7])
    noised = plan.privatise(total.close(), reserve(plan.event), stream)
    assert noised.value["w"].tolist() == pytest.approx([(1 + 1.2) / 10, 1.6 / 10], abs=2e-3)
    assert noised.event == plan.step_event == PoissonSampled(0.05, Gaussian(0.001))


@pytest.mark.statistical
def test_selection_is_poisson_over_units(make_privacy, stream):
    """Broken twin beside it: batches of a fixed size never vary, so no amplification holds."""
    plan = make_privacy(sampling_rate=0.2)
    sizes = [len(plan.select(50, stream)) for _ in range(2000)]
    cells = [sum(size == k for size in sizes) for k in range(4, 17)]
    expected = stats.binom.pmf(range(4, 17), 50, 0.2)
    rest = 2000 - sum(cells), 1 - expected.sum()
    chi = stats.chisquare([*cells, rest[0]], [*(2000 * expected), 2000 * rest[1]])
    assert chi.pvalue > ALARM
    fixed = [10] * 2000
    broken = [sum(size == k for size in fixed) for k in range(4, 17)]
    assert stats.chisquare([*broken, 0], [*(2000 * expected), 2000 * rest[1]]).pvalue < ALARM
    assert plan.select(0, stream) == []


def test_records_of_a_unit_are_bounded(make_privacy, stream):
    assert make_privacy().select_records(7, stream) == list(range(7))
    chosen = make_privacy(max_records=3).select_records(7, stream)
    assert len(chosen) == 3
    assert set(chosen) < set(range(7))


def test_automatic_clipping_is_part_of_the_plan(make_privacy):
    total = make_privacy(clip_rule=ClipRule.AUTOMATIC).clipped_sum({"w": torch.Size([1])})
    total.add({"w": torch.tensor([[0.01]])}, [0])
    assert float(total.close().value["w"]) == pytest.approx(0.5, rel=1e-4)


def test_a_sum_clipped_for_another_plan_is_refused(make_privacy, reserve, stream):
    plan = make_privacy()
    reservation = reserve(plan.event)
    wide = ClippedSum({"w": torch.Size([1])}, 5.0, Unit.RECORD).close()
    with pytest.raises(ValueError, match="the sum's bound is 5; the plan's is 1"):
        plan.privatise(wide, reservation, stream)
    pairs = ClippedSum({"w": torch.Size([1])}, 1.0, Unit.PAIR).close()
    with pytest.raises(ValueError, match="the sum is over pairs; the plan protects a record"):
        plan.privatise(pairs, reservation, stream)


def test_without_protection_sums_pass_as_they_are(make_privacy, reserve, stream):
    plan = make_privacy(mode=Mode.NONE, noise_multiplier=0.0, steps=1)
    total = plan.clipped_sum({"w": torch.Size([1])})
    total.add({"w": torch.tensor([[70.0]])}, [0])
    noised = plan.privatise(total.close(), reserve(plan.event), stream)
    assert noised.value["w"].tolist() == [7.0]
    assert noised.event == Unprotected()
    assert plan.clip_update({"w": torch.tensor([70.0])}).value["w"].tolist() == [70.0]


# --- whole updates and statistics ---------------------------------------------------------------


def test_a_whole_update_is_one_gaussian_whatever_happened_at_home(make_privacy, reserve, stream):
    plan = make_privacy(**UPDATE, noise_multiplier=3.0, steps=50)
    assert plan.event == Gaussian(3.0)
    clipped = plan.clip_update({"w": torch.full((40_000,), 9.0)})
    assert norm(clipped.value) == pytest.approx(1.0, rel=2e-5)
    noised = plan.privatise(clipped, reserve(plan.event, Unit.SITE), stream)
    assert float(noised.value["w"].std()) == pytest.approx(3.0, rel=0.03)


@pytest.mark.statistical
def test_a_statistic_is_released_once(make_privacy, reserve, stream):
    """Mean of bounded moments of 400 units: within noise of the truth."""
    plan = make_privacy(
        mechanism=Mechanism.ONE_SHOT, steps=1, sampling_rate=1.0, expected_units=400.0
    )
    contributions = torch.full((400, 3), 0.5)  # length 0.87, below the clip norm
    total = plan.clipped_sum({"moments": torch.Size([3])})
    total.add({"moments": contributions}, range(400))
    noised = plan.privatise(total.close(), reserve(plan.event), stream)
    assert plan.event == Repeated(PoissonSampled(1.0, Gaussian(1.0)), 1)
    deviation = 1 / 400
    error = (noised.value["moments"] - 0.5).abs().max()
    assert float(error) < deviation * stats.norm.isf(ALARM / 6) + lattice_step(1.0)


# --- DP-LoRA as published -----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("unit", "groups", "expected"),
    # sigma 2, 50 rounds, delta 1e-5: what the published mechanism gives under each reading,
    # computed with dp-accounting's PLD.
    [(Unit.SITE, 1, 20.7), (Unit.SITE, 2, 33.1), (Unit.RECORD, 2, 91.8)],
)
def test_the_published_noise_costs_what_it_costs(make_privacy, unit, groups, expected):
    plan = make_privacy(**PAPER, unit=unit, groups=groups, sampling_rate=1.0, steps=50)
    assert epsilon(plan.event, 1e-5) == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize(("records", "expected"), [(1000, 1.71), (5000, 0.39), (52_000, 0.02)])
def test_a_true_poisson_sampler_would_be_credited(make_privacy, records, expected):
    plan = make_privacy(**PAPER, sampling_rate=8 / records, steps=50)
    assert epsilon(plan.event, 1e-5) == pytest.approx(expected, abs=6e-3)


@settings(deadline=None, max_examples=60)
@given(rows=arrays(numpy_float32, (2, 9), elements=st.floats(-(2.0**15), 2.0**15, width=16)))
def test_a_changed_record_moves_a_clipped_batch_gradient_by_its_bound_at_most(rows):
    groups = {"a": "A", "b": "B"}
    values = []
    for row in torch.from_numpy(rows.astype("float32")):
        gradient = {"a": row[:4], "b": row[4:]}
        values.append(clip_batch_gradient(gradient, groups, 0.7, Unit.RECORD))
    moved = {name: values[0].value[name] - values[1].value[name] for name in groups}
    assert norm(moved) <= values[0].bound == pytest.approx(2 * 0.7 * math.sqrt(2))


def test_one_outlier_turns_a_clipped_batch_gradient_and_hardly_moves_clipped_records():
    """Batch of 32: about C for the batch clip, C/32 for the record clip."""
    rows = torch.zeros(32, 8)
    rows[:, 0] = 1.0
    outlier = rows.clone()
    outlier[0] = torch.tensor([0.0, 1e4] + [0.0] * 6)
    batch, records = [], []
    for data in (rows, outlier):
        clipped = clip_batch_gradient({"a": data.mean(0)}, {"a": "A"}, 1.0, Unit.RECORD)
        batch.append(clipped.value["a"])
        total = ClippedSum({"a": torch.Size([8])}, 1.0, Unit.RECORD)
        total.add({"a": data}, range(32))
        records.append(total.close().value["a"] / 32)
    assert float((batch[0] - batch[1]).norm()) > 0.9
    assert float((records[0] - records[1]).norm()) < 2 / 32


def test_the_reconstruction_runs_as_it_is_accounted(make_privacy, reserve, stream):
    plan = make_privacy(**PAPER, unit=Unit.RECORD, sampling_rate=1.0, steps=1, clip_norm=0.5)
    gradient = {"a": torch.full((30_000,), 5.0), "b": torch.full((30_000,), math.nan)}
    clipped = plan.clip_batch_gradient(gradient, {"a": "A", "b": "B"})
    noised = plan.privatise(clipped, reserve(plan.event), stream)
    assert float(noised.value["a"].std()) == pytest.approx(2.0 * 0.5, rel=0.03)  # sigma C
    assert float(noised.value["b"].mean()) == pytest.approx(0.0, abs=0.05)
    with pytest.raises(ValueError, match="groups is 1; it must be 2"):
        plan.clip_batch_gradient(gradient, {"a": "A", "b": "A"})
    assert "reconstruction" in plan.mechanism.description
    assert effective_multiplier(2.0, Unit.SITE, 2) == pytest.approx(math.sqrt(2))


# --- adaptive clipping --------------------------------------------------------------------------


def test_gradient_and_count_together_cost_the_plans_noise(make_privacy):
    """Andrew et al. (2021), theorem 1: z_delta = (z^-2 - (2 sigma_b)^-2)^-1/2."""
    adaptive = AdaptiveClip(count_noise=1.0)
    assert adaptive.gradient_multiplier(1.0) == pytest.approx((1 - 1 / 4) ** -0.5)
    plan = make_privacy(adaptive=adaptive)
    assert plan.event == make_privacy().event
    with pytest.raises(ValueError, match=r"count_noise is 0\.5; .* must be greater than 0\.5"):
        make_privacy(adaptive=AdaptiveClip(count_noise=0.5))


def test_the_clip_norm_settles_at_the_quantile(make_privacy, reserve, stream):
    """Norms 1 to 400: the median is 200, the noise on the count is small against 400 units."""
    plan = make_privacy(
        clip_norm=10.0,
        noise_multiplier=1.0,
        sampling_rate=1.0,
        expected_units=400.0,
        steps=60,
        adaptive=AdaptiveClip(learning_rate=0.5, count_noise=2.0),
    )
    session, reservation = start_session(plan), reserve(plan.event)
    rows = torch.zeros(400, 3)
    rows[:, 0] = torch.arange(1.0, 401.0)
    for _ in range(60):
        total = session.clipped_sum({"w": torch.Size([3])})
        total.add({"w": rows}, range(400))
        noised = session.privatise(total.close(), reservation, stream)
        assert set(noised.value) == {"w"}
    assert session.clip_norm == pytest.approx(200, rel=0.1)
    with pytest.raises(LedgerError, match="charged no more"):
        session.privatise(session.clipped_sum({"w": torch.Size([3])}).close(), reservation, stream)


def test_the_count_is_read_within_its_range():
    adaptive = AdaptiveClip(target_quantile=0.5, learning_rate=0.2)
    assert adaptive.next_clip_norm(1.0, 1e9, 10.0) == pytest.approx(math.exp(-0.1))
    assert adaptive.next_clip_norm(1.0, -1e9, 10.0) == pytest.approx(math.exp(0.1))
    assert adaptive.next_clip_norm(3.0, 0.0, 10.0) == 3.0


def test_a_fixed_clip_norm_needs_no_session(make_privacy):
    plan = make_privacy()
    assert start_session(plan) is plan


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_quantile": 1.0}, "target_quantile is 1.0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"count_noise": math.inf}, "count_noise is inf"),
    ],
)
def test_adaptive_settings_name_their_bounds(changes, message):
    with pytest.raises(ValueError, match=message):
        AdaptiveClip(**changes)


# --- plans that make no sense -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip_norm": 0.0}, "clip_norm is 0.0; it must be finite and greater than 0"),
        ({"clip_norm": math.inf}, "clip_norm is inf"),
        ({"expected_units": 0.0}, "expected_units is 0.0"),
        ({"noise_multiplier": 0.0}, "noise_multiplier is 0.0; it must be finite and greater"),
        ({"mode": Mode.NONE}, "noise_multiplier is 1.0; it must be 0 in mode none"),
        ({"sampling_rate": 0.0}, r"sampling_rate is 0.0; it must be in \(0, 1\]"),
        ({"sampling_rate": 1.5}, "sampling_rate is 1.5"),
        ({"steps": 0}, "steps is 0; it must be 1 or more"),
        ({"max_records": 0}, "max_records is 0"),
        ({"adjacency": Adjacency.REPLACE_ONE}, "adjacency must be add-remove"),
        ({"unit": Unit.SITE}, "only a whole update or the reconstruction protects it"),
        ({"mechanism": Mechanism.WHOLE_UPDATE}, "unit is record; it must be site"),
        (UPDATE | {"sampling_rate": 0.5}, "sampling_rate is 0.5; it must be 1"),
        (UPDATE | {"expected_units": 2.0}, "expected_units is 2.0; it must be 1"),
        (PAPER | {"unit": Unit.PATIENT}, "unit is patient; it must be site or record"),
        (PAPER | {"expected_units": 5.0}, "expected_units is 5.0; it must be 1"),
        ({"mechanism": Mechanism.ONE_SHOT, "steps": 2}, "steps is 2; it must be 1"),
        (UPDATE | {"adaptive": AdaptiveClip()}, "adaptive clipping goes with private dp-sgd"),
        (
            {"mode": Mode.NONE, "noise_multiplier": 0.0, "adaptive": AdaptiveClip()},
            "adaptive clipping goes with private dp-sgd",
        ),
    ],
)
def test_a_plan_names_field_value_and_bound(make_privacy, changes, message):
    with pytest.raises(ValueError, match=message):
        make_privacy(**changes)


def test_every_mechanism_has_words_for_reports():
    assert len({mechanism.description for mechanism in Mechanism}) == len(Mechanism)
    assert PrivacyPlan.__dataclass_fields__["mechanism"].default is Mechanism.DP_SGD
