"""Contributions of bounded length, cumulants in closed form, and a verdict that follows noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.strategies.causal.lingam import strengths
from wardround.strategies.causal.moments import (
    SENSITIVITY,
    contributions,
    judge,
    moments_of,
    monomials,
    order_of_cumulants,
    root_statistics,
    scale_rows,
)

NOTHING_KNOWN = np.zeros((2, 2), dtype=bool)


def closed_form(w):
    """x0 = e0, x1 = w e0 + e1, centred Exp(1): variance 1, third cumulant 2."""
    second = np.array([[1.0, w], [w, w**2 + 1]])
    third = np.zeros((2, 2, 2))
    values = {0: 2.0, 1: 2 * w, 2: 2 * w**2, 3: 2 * w**3 + 2}
    for place in np.ndindex(2, 2, 2):
        third[place] = values[sum(place)]
    return second, third


@pytest.mark.parametrize("w", [1.0, 0.5, -2.0])
def test_the_root_has_no_joint_cumulants_in_closed_form(w):
    second, third = closed_form(w)
    scores = root_statistics(second, third)
    assert scores[0] == 0
    assert scores[1] > 0.01
    assert order_of_cumulants(second, third, NOTHING_KNOWN) == [0, 1]
    swapped = second[::-1, ::-1], third[::-1, ::-1, ::-1]
    assert order_of_cumulants(*swapped, NOTHING_KNOWN) == [1, 0]


def test_one_of_the_two_cumulants_alone_would_be_fooled():
    """w = 1, j = 1: a = 2 - 2 = 0, b = 2 - 2 + 1 = 1; the score is b^2 / (v_j v_r^2)."""
    second, third = closed_form(1.0)
    c = second[1, 0] / second[1, 1]
    assert third[1, 1, 0] - c * third[1, 1, 1] == 0
    assert root_statistics(second, third)[1] == pytest.approx(1 / (2 * 0.5**2))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 6), st.integers(0, 10_000), st.floats(0, 3))
def test_a_contribution_is_at_most_the_root_of_three_long(size, seed, length):
    """Equality where the scaled row has length 1: 1 + 1 + 1."""
    generator = torch.Generator().manual_seed(seed)
    row = torch.randn((1, size), generator=generator, dtype=torch.float64).numpy()
    row *= length / np.linalg.norm(row)
    scaled = scale_rows(row, np.zeros(size), np.ones(size), 1.0)
    found = float(np.linalg.norm(contributions(scaled)))
    part = min(length, 1.0)
    assert found == pytest.approx(math.sqrt(part**2 + part**4 + part**6), rel=1e-12, abs=1e-12)
    assert found <= SENSITIVITY * (1 + 1e-12)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5), st.integers(0, 10_000))
def test_rows_that_are_not_shortened_would_break_the_bound(size, seed):
    """The broken twin: the same check fails when a row of length 1.5 is left as long as it is."""
    generator = torch.Generator().manual_seed(seed)
    row = torch.randn((1, size), generator=generator, dtype=torch.float64).numpy()
    row *= 1.5 / np.linalg.norm(row)
    assert float(np.linalg.norm(contributions(row))) > 1.5 * SENSITIVITY


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 10_000))
def test_one_row_more_moves_the_sum_by_the_sensitivity_at_most(size, rows, seed):
    generator = torch.Generator().manual_seed(seed)
    values = 5 * torch.randn((rows, size), generator=generator, dtype=torch.float64).numpy()
    scaled = scale_rows(values, np.zeros(size), np.ones(size), 2.0)
    gap = contributions(scaled).sum(axis=0) - contributions(scaled[:-1]).sum(axis=0)
    assert float(np.linalg.norm(gap)) <= SENSITIVITY * (1 + 1e-12)


def test_symmetric_entries_are_released_once_and_weighted():
    """With noise of deviation 1 an entry of multiplicity m has deviation 1 / sqrt(m)."""
    products, weights = monomials(3)
    assert len(products) == 3 + 6 + 10
    assert dict(zip(products, weights**2, strict=True))[(0, 1, 2)] == pytest.approx(6)
    assert dict(zip(products, weights**2, strict=True))[(0, 0, 2)] == pytest.approx(3)
    total = np.zeros(len(products))
    total[products.index((0, 1, 2))] = 1.0
    third = moments_of(total, 1.0, 3).third
    assert third[2, 0, 1] == third[0, 1, 2] == pytest.approx(1 / math.sqrt(6))
    with pytest.raises(ValueError, match=r"expected \(19,\)"):
        moments_of(total[1:], 1.0, 3)


def test_moments_are_those_of_the_rows(noise):
    rows = scale_rows(noise(500, 3, 2), np.zeros(3), np.ones(3), 10.0)
    found = moments_of(contributions(rows).sum(axis=0), 500, 3)
    second, third = found.cumulants()
    centred = rows - rows.mean(axis=0)
    np.testing.assert_allclose(second, centred.T @ centred / 500, atol=1e-15)
    wanted = np.einsum("ni,nj,nk->ijk", centred, centred, centred) / 500
    np.testing.assert_allclose(third, wanted, atol=1e-15)


def test_any_split_of_rows_gives_the_same_graph(rows_of):
    weights = np.zeros((4, 4))
    weights[0, 1], weights[1, 2], weights[0, 3] = 0.8, -1.2, 0.7
    rows = scale_rows(rows_of(weights, 3000, 3), np.zeros(4), np.ones(4), 12.0)
    whole = contributions(rows).sum(axis=0)
    parts = [contributions(part).sum(axis=0) for part in np.array_split(rows, 5)]
    np.testing.assert_allclose(np.sum(parts, axis=0), whole, atol=1e-10)
    generator = torch.Generator()
    pooled = judge([whole], [3000], 4, 0.0, generator)
    split = judge(parts, [600] * 5, 4, 0.0, generator)
    assert pooled.order == split.order
    assert pooled.believed
    np.testing.assert_allclose(split.adjacency, pooled.adjacency, atol=1e-10)
    assert (pooled.adjacency.T != 0).tolist() == (weights != 0).tolist()


def test_without_noise_the_result_is_the_same_to_the_bit(rows_of):
    rows = scale_rows(rows_of(np.array([[0, 0.8], [0, 0]]), 800, 1), np.zeros(2), np.ones(2), 9.0)
    total = contributions(rows).sum(axis=0)
    found = judge([total], [800], 2, 0.0, torch.Generator())
    covariance, third = moments_of(total, 800, 2).cumulants()
    order = order_of_cumulants(covariance, third, NOTHING_KNOWN)
    assert list(found.order) == order
    assert (found.adjacency == strengths(covariance, 800, order, NOTHING_KNOWN)).all()
    assert found.stability.max() == 1


def test_the_verdict_follows_the_noise(rows_of):
    """20,000 rows at a deviation of 1 are believed, 200 rows at 40 are not."""
    weights = np.array([[0, 0.8], [0, 0]])

    def verdict(count, deviation):
        scaled = scale_rows(rows_of(weights, count, 4), np.zeros(2), np.ones(2), 5.0)
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randn(9, generator=generator, dtype=torch.float64).numpy()
        total = contributions(scaled).sum(axis=0) + deviation * drawn
        return judge([total], [count], 2, deviation, generator)

    sure, lost = verdict(20_000, 1.0), verdict(200, 40.0)
    assert sure.believed
    assert sure.order == (0, 1)
    assert not lost.believed
    assert "noise" in lost.reason
