"""No unit moves a clipped sum by more than the bound, whatever it brings."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy import float32 as numpy_float32

from wardround.privacy import clipping
from wardround.privacy._seal import SEAL
from wardround.privacy.clipping import (
    Clipped,
    ClippedSum,
    ClipRule,
    clip_factors,
    clip_update,
    unit_norms,
)
from wardround.privacy.units import Adjacency, Unit

SHAPES = {"a": torch.Size([3, 2]), "b": torch.Size([5])}


def total(rows, members=None, clip_norm=1.0, rule=ClipRule.FLAT, chunk=None):
    """The clipped sum of rows given as one matrix of 11 columns."""
    clipped = ClippedSum(SHAPES, clip_norm, Unit.RECORD, rule)
    members = list(range(len(rows))) if members is None else members
    for start in range(0, len(rows), chunk or max(1, len(rows))):
        part = rows[start : start + (chunk or len(rows))]
        names = {"a": part[:, :6].reshape(-1, 3, 2), "b": part[:, 6:]}
        clipped.add(names, members[start : start + len(part)])
    return clipped


def flat(clipped):
    return torch.cat([array.flatten() for array in clipped.close().value.values()])


numbers = st.floats(-(2.0**100), 2.0**100, width=32)
anything = st.floats(width=32, allow_nan=True, allow_infinity=True)


@pytest.mark.parametrize("rule", list(ClipRule))
@settings(deadline=None, max_examples=60)
@given(rows=arrays(numpy_float32, (4, 11), elements=anything), gone=st.integers(0, 3))
def test_removing_one_unit_moves_the_sum_by_the_bound_at_most(rule, rows, gone):
    """Scales from 1e-45 to 1e38, infinities and NaNs, in float32."""
    rows = torch.from_numpy(rows)
    kept = [i for i in range(4) if i != gone]
    moved = flat(total(rows, rule=rule)) - flat(total(rows[kept], kept, rule=rule, chunk=2))
    assert float(moved.norm()) <= 1.0


@settings(deadline=None, max_examples=60)
@given(rows=arrays(numpy_float32, (3, 11), elements=numbers), scale=st.floats(1e-3, 1e3))
def test_the_bound_is_the_clip_norm_at_any_scale(rows, scale):
    rows = torch.from_numpy(rows)[:1]
    assert float(flat(total(rows, clip_norm=scale)).norm()) <= scale


def test_a_batch_mean_clip_moves_by_far_more_than_the_bound():
    """Broken twin: clipping the sum instead of each unit hides no outlier's direction."""
    crowd = torch.zeros(32, 11)
    crowd[:, 0] = 1.0
    crowd[0] = torch.tensor([0.0, 100.0] + [0.0] * 9)
    both = [rows.mean(0) * min(1.0, 1 / float(rows.mean(0).norm())) for rows in (crowd, crowd[1:])]
    assert float((both[0] - both[1]).norm()) > 1.0
    ours = [flat(total(rows)) for rows in (crowd, crowd[1:])]
    assert float((ours[0] - ours[1]).norm()) <= 1.0


def test_clipping_each_row_of_a_pair_lets_the_pair_count_twice():
    """Broken twin: a preference pair is one unit, its two rows are clipped together."""
    pair = torch.zeros(2, 11)
    pair[:, 0] = 50.0
    as_rows = float(flat(total(pair)).norm())
    as_unit = float(flat(total(pair.sum(0, keepdim=True))).norm())
    assert as_rows > 1.9
    assert as_unit <= 1.0


def test_short_contributions_pass_unchanged_and_long_ones_are_cut():
    rows = torch.zeros(2, 11)
    rows[0, 0], rows[1, 1] = 0.25, 8.0
    clipped = flat(total(rows))
    assert clipped[0] == 0.25
    assert clipped[1] == pytest.approx(1.0, rel=2e-5)


def test_automatic_clipping_brings_all_to_nearly_one_length():
    """Bu et al. (2023), equation 4: each gradient over its norm plus 0.01."""
    for length in (0.01, 1.0, 100.0):
        rows = torch.zeros(1, 11)
        rows[0, 0] = length
        value = float(flat(total(rows, rule=ClipRule.AUTOMATIC))[0])
        assert value == pytest.approx(length / (length + 0.01), rel=2e-5)


def test_norms_of_millions_of_numbers_are_right():
    """Torch's own float32 norm is off by 1.7e-3 here; the bound would be broken by as much."""
    rows = torch.full((1, 4_000_000), 0.1)
    exact = float(rows.double().square().sum().sqrt())
    ours = float(unit_norms({"a": rows[:, :1_000_001], "b": rows[:, 1_000_001:]})[0])
    assert ours == pytest.approx(exact, rel=1e-12)
    assert abs(float(torch.linalg.vector_norm(rows)) / exact - 1) > 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_norms_in_any_type(dtype):
    rows = torch.linspace(-1, 1, 2 * 700).view(2, 700).to(dtype)
    exact = rows.double().square().sum(1).sqrt()
    assert torch.allclose(unit_norms({"a": rows}), exact, rtol=1e-14, atol=0)


LAYOUTS = {
    "contiguous": lambda rows: rows,
    "transposed": lambda rows: rows.transpose(1, 3).contiguous().transpose(1, 3),
    "cycled": lambda rows: rows.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
    "units last": lambda rows: rows.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
    "every other": lambda rows: rows.repeat_interleave(2, dim=2)[:, :, ::2],
}


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@settings(deadline=None, max_examples=25)
@given(length=st.floats(2.0**-20, 2.0**60), seed=st.integers(0, 2**20), bound=st.floats(0.01, 100))
def test_no_unit_is_longer_than_the_bound_however_it_lies_in_memory(
    layout, dtype, length, seed, bound
):
    generator = torch.Generator().manual_seed(seed)
    rows = (torch.randn(1, 3, 4, 5, generator=generator) * length).to(dtype)
    laid = LAYOUTS[layout](rows)
    assert torch.equal(laid, rows)
    clipped = ClippedSum({"w": rows.shape[1:]}, bound, Unit.RECORD)
    clipped.add({"w": laid}, [0])
    assert float(clipped.close().value["w"].norm()) <= bound


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_every_number_is_added_where_it_belongs(layout):
    """Against the plain formula in float64, over units of which one is not finite."""
    rows = torch.arange(6 * 60, dtype=torch.float32).view(6, 3, 4, 5) / 100
    rows[2, 0, 0, 0] = math.inf
    others = torch.linspace(-1, 1, 6 * 7).view(6, 7)
    clipped = ClippedSum({"w": rows.shape[1:], "v": others.shape[1:]}, 2.0, Unit.RECORD)
    clipped.add({"w": LAYOUTS[layout](rows), "v": others}, range(6))
    kept = torch.tensor([0, 1, 3, 4, 5])
    w, v = rows[kept].double(), others[kept].double()
    norms = torch.sqrt(w.square().sum((1, 2, 3)) + v.square().sum(1))
    factors = (2.0 / norms).clamp(max=1.0)
    value = clipped.close().value
    assert torch.allclose(value["w"], torch.einsum("u,uijk->ijk", factors, w), rtol=2e-5, atol=0)
    assert torch.allclose(value["v"], factors @ v, rtol=2e-5, atol=1e-9)


def test_factors_are_cut_to_what_a_cache_holds(monkeypatch):
    """A long one goes in pieces, and none as a copy of the whole."""
    monkeypatch.setattr(clipping, "_BLOCK", 64)
    columns = torch.linspace(-1, 1, 4 * 59).view(4, -1)
    parts = dict(zip("abc", torch.split(columns, (2, 50, 7), dim=1), strict=True))
    assert [block.shape[1] for block in clipping._blocks(parts["b"], 4)] == [16, 16, 16, 2]
    assert torch.allclose(unit_norms(parts), columns.double().norm(dim=1), rtol=1e-14, atol=0)
    whole = ClippedSum({"a": columns.shape[1:]}, 1.0, Unit.RECORD)
    whole.add({"a": columns}, range(4))
    cut = ClippedSum({name: part.shape[1:] for name, part in parts.items()}, 1.0, Unit.RECORD)
    cut.add(parts, range(4))
    pieces = torch.cat(list(cut.close().value.values()))
    assert torch.allclose(pieces, whole.close().value["a"], rtol=1e-5, atol=0)


# 65 roundings of 2**-24 in each run's sum of squares, half of which reach the root.
RUNS = {"rtol": 65 * 2.0**-25, "atol": 0.0}


def test_chunks_add_up_although_they_lie_differently_in_memory():
    rows = torch.randn(4, 3, 64, generator=torch.Generator().manual_seed(0))
    once, twice = (ClippedSum({"w": rows.shape[1:]}, 2.0, Unit.RECORD) for _ in range(2))
    once.add({"w": rows}, range(4))
    twice.add({"w": rows[:1].transpose(1, 2).contiguous().transpose(1, 2)}, [0])
    twice.add({"w": rows[1:]}, [1, 2, 3])
    both = (one.close().value["w"] for one in (once, twice))
    assert torch.allclose(*both, rtol=0, atol=4 * 2.0 * RUNS["rtol"])


@settings(deadline=None, max_examples=60)
@given(rows=arrays(numpy_float32, (3, 128), elements=st.floats(width=32, allow_nan=False)))
def test_norms_of_runs_are_as_close_as_the_margin_needs(rows):
    """Any finite or infinite float32, from 1e-45 to 3e38."""
    rows = torch.from_numpy(rows)
    exact = rows.double().square().sum(1).sqrt()
    assert torch.allclose(clipping._norms_of_runs([rows[:, :64], rows[:, 64:]]), exact, **RUNS)


def test_norms_of_runs_of_millions_of_numbers_are_right():
    """What torch's own float32 norm gets wrong by 1.7e-3."""
    rows = torch.full((1, 4_000_000), 0.1)
    exact = rows.double().square().sum(1).sqrt()
    assert torch.allclose(clipping._norms_of_runs([rows]), exact, **RUNS)


@pytest.mark.parametrize(("size", "seen"), [(2.0**-90, 0.0), (2.0**90, math.inf)])
def test_squares_that_float32_cannot_hold_are_clipped_all_the_same(size, seen):
    """Runs alone would let the first through as nothing and drop the second as not finite."""
    rows = torch.full((1, 64), size)
    assert float(clipping._norms_of_short_runs(rows)) == seen
    clipped = ClippedSum({"a": rows.shape[1:]}, size, Unit.RECORD)
    clipped.add({"a": rows}, [0])
    assert clipped.dropped == 0
    assert float(clipped.close().value["a"].norm()) == pytest.approx(size, rel=2e-5)


@settings(deadline=None, max_examples=60)
@given(rows=arrays(numpy_float32, (3, 128), elements=anything), bound=st.floats(2.0**-100, 2.0**60))
def test_no_unit_measured_in_runs_moves_the_sum_by_more_than_the_bound(rows, bound):
    rows = torch.from_numpy(rows).view(3, 2, 64)
    everybody, others = (ClippedSum({"a": rows.shape[1:]}, bound, Unit.RECORD) for _ in range(2))
    everybody.add({"a": rows}, range(3))
    others.add({"a": rows[1:]}, [1, 2])
    moved = everybody.close().value["a"] - others.close().value["a"]
    assert float(moved.norm()) <= bound


def test_what_is_not_finite_counts_as_zero_and_is_counted_at_home():
    rows = torch.ones(3, 11)
    rows[1, 4] = math.nan
    rows[2, 0] = math.inf
    clipped = total(rows)
    assert clipped.dropped == 2
    assert torch.equal(flat(clipped), flat(total(rows[:1])))
    assert clip_factors({"a": rows}, 1.0).tolist()[1:] == [0.0, 0.0]


def test_without_a_clip_norm_the_sum_is_plain():
    rows = torch.full((2, 11), 7.0)
    assert torch.equal(flat(total(rows, clip_norm=math.inf)), torch.full((11,), 14.0).double())


def test_short_enough_units_are_counted_by_halves():
    rows = torch.zeros(3, 11)
    rows[0, 0], rows[1, 0], rows[2, 0] = 0.5, 1.0, 3.0
    within = total(rows).close().within_sum()
    assert within.value["within"].tolist() == [0.5]
    assert within.sensitivity(Adjacency.ADD_REMOVE) == 0.5


def test_an_empty_sum_is_zero_and_keeps_its_bound():
    clipped = ClippedSum(SHAPES, 2.0, Unit.PATIENT)
    clipped.add({name: torch.zeros(0, *shape) for name, shape in SHAPES.items()}, [])
    closed = clipped.close()
    assert float(closed.value["a"].abs().sum()) == 0
    assert closed.sensitivity(Adjacency.ADD_REMOVE) == 2.0
    assert closed.sensitivity(Adjacency.REPLACE_ONE) == 4.0
    assert closed.unit is Unit.PATIENT


def test_a_whole_update_is_one_sites_contribution():
    update = {"a": torch.full((3, 2), 3.0), "b": torch.zeros(5)}
    clipped = clip_update(update, 0.5)
    length = torch.cat([array.flatten() for array in clipped.value.values()]).norm()
    assert float(length) == pytest.approx(0.5, rel=2e-5)
    assert (clipped.unit, clipped.bound) == (Unit.SITE, 0.5)


@pytest.mark.parametrize(
    ("rows", "members", "message"),
    [
        ({"a": torch.zeros(2, 3, 2), "b": torch.zeros(2, 5)}, [1, 1], "contribute once"),
        ({"a": torch.zeros(1, 3, 2), "b": torch.zeros(1, 5)}, [0], "contribute once"),
        ({"a": torch.zeros(1, 3, 2)}, [1], "differ in 'b'"),
        ({"a": torch.zeros(1, 2, 3), "b": torch.zeros(1, 5)}, [1], r"a: shape \(1, 2, 3\)"),
    ],
)
def test_what_does_not_fit_is_refused(rows, members, message):
    clipped = ClippedSum(SHAPES, 1.0, Unit.RECORD)
    clipped.add({"a": torch.zeros(1, 3, 2), "b": torch.zeros(1, 5)}, [0])
    with pytest.raises(ValueError, match=message):
        clipped.add(rows, members)


def test_a_sum_needs_a_positive_clip_norm():
    for clip_norm in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="it must be greater than 0"):
            ClippedSum(SHAPES, clip_norm, Unit.RECORD)


def test_nobody_else_can_make_a_clipped_value():
    with pytest.raises(TypeError, match="only be made inside"):
        Clipped({}, 1.0, Unit.RECORD)
    assert Clipped({}, 1.0, Unit.RECORD, seal=SEAL).bound == 1.0
