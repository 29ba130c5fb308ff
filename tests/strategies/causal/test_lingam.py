"""Orders and strengths from rows, prior knowledge, and hospitals that answer as one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.privacy.errors import BadInput
from wardround.strategies.causal.lingam import (
    DirectLingam,
    bootstrap_probabilities,
    entropies,
    order_constraints,
)
from wardround.strategies.causal.pooled import fit_pooled, row_sites
from wardround.strategies.causal.scores import graph_scores, order_agreement
from wardround.strategies.causal.systems import random_dag


def chain(rows_of, rows=3000, seed=0):
    weights = np.zeros((4, 4))
    weights[0, 1], weights[1, 2], weights[0, 3], weights[2, 3] = 0.8, -1.2, 0.7, 0.9
    return rows_of(weights, rows, seed), weights.T


def test_two_variables_and_the_same_two_swapped(rows_of):
    """x1 = 0.8 x0 + e. The weight's error is 1 / sqrt(2000) = 0.022: 0.1 is over four of them."""
    rows = rows_of(np.array([[0.0, 0.8], [0.0, 0.0]]), 2000, 1)
    found = DirectLingam().fit(rows)
    assert found.causal_order_ == [0, 1]
    assert found.adjacency_matrix_[1, 0] == pytest.approx(0.8, abs=0.1)
    assert found.adjacency_matrix_[0, 1] == 0
    assert DirectLingam().fit(rows[:, ::-1]).causal_order_ == [1, 0]


def test_a_small_graph_is_found_whole(rows_of):
    rows, truth = chain(rows_of)
    found = DirectLingam().fit(rows)
    assert order_agreement(found.causal_order_, truth) == 1
    assert graph_scores(found.adjacency_matrix_, truth)["f1"] == 1
    np.testing.assert_allclose(found.adjacency_matrix_, truth, atol=0.15)


@pytest.mark.parametrize("permutation", [[3, 2, 1, 0], [1, 3, 0, 2]])
def test_permuted_columns_give_the_permuted_answer(rows_of, permutation):
    rows, _ = chain(rows_of)
    plain, turned = DirectLingam().fit(rows), DirectLingam().fit(rows[:, permutation])
    assert [permutation[place] for place in turned.causal_order_] == plain.causal_order_
    wanted = plain.adjacency_matrix_[np.ix_(permutation, permutation)]
    np.testing.assert_allclose(turned.adjacency_matrix_, wanted, rtol=1e-8, atol=1e-12)


def test_entropy_of_a_normal_and_an_exponential():
    """A normal's is (1 + log 2 pi) / 2, and no other of variance 1 has more."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(200_000, generator=generator, dtype=torch.float64).numpy()
    skewed = -np.log1p(-torch.rand(200_000, generator=generator, dtype=torch.float64).numpy()) - 1
    found = entropies(np.stack([normal, skewed], axis=1))
    assert found[0] == pytest.approx((1 + np.log(2 * np.pi)) / 2, abs=1e-3)
    assert found[1] < found[0] - 0.1


def test_a_barred_path_forces_the_order_and_both_bars_force_none(rows_of):
    """Behaviour of lingam 1.13: zero at [to, from] puts ``to`` first; both ways bar edges only."""
    rows = rows_of(np.array([[0.0, 0.8], [0.0, 0.0]]), 2000, 1)
    prior = np.array([[-1.0, -1.0], [0.0, -1.0]])
    assert DirectLingam(prior).fit(rows).causal_order_ == [1, 0]
    both = np.array([[-1.0, 0.0], [0.0, -1.0]])
    found = DirectLingam(both).fit(rows)
    assert found.causal_order_ == [0, 1]
    assert not found.adjacency_matrix_.any()


def test_demands_that_go_round_in_a_circle_are_refused():
    prior = np.full((3, 3), -1.0)
    prior[0, 1] = prior[1, 2] = prior[2, 0] = 0
    with pytest.raises(BadInput, match="circle"):
        order_constraints(prior, 3)
    with pytest.raises(BadInput, match="3 by 3"):
        order_constraints(prior[:2], 3)
    with pytest.raises(BadInput, match="of -1 and 0"):
        order_constraints(prior + 5, 3)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros((3,)), "expected rows and columns"),
        (np.ones((9, 2)), "column 0 of the data never changes"),
        (np.array([[1.0, np.nan]] * 9), "not finite"),
        (np.eye(3), "more rows are needed"),
        ([["a", "b"]], "not a table of numbers"),
    ],
)
def test_data_that_cannot_be_used_is_refused(rows, message):
    with pytest.raises(BadInput, match=message):
        DirectLingam().fit(rows)


def test_column_names_are_kept(rows_of):
    class Table:
        def __init__(self, values):
            self.values, self.columns = values, ["age", "pressure", "dose", "outcome"]

        def __array__(self, dtype=None, copy=None):
            return np.asarray(self.values, dtype=dtype)

    found = DirectLingam().fit(Table(chain(rows_of)[0]))
    assert found.feature_names_ == ("age", "pressure", "dose", "outcome")


def test_bootstrap_finds_strong_edges_always(rows_of):
    rows, truth = chain(rows_of, rows=2000)
    generator = torch.Generator().manual_seed(0)
    found = bootstrap_probabilities(
        lambda values: DirectLingam().fit(values).adjacency_matrix_, rows, 5, generator
    )
    assert (found[truth != 0] == 1).all()
    assert (found * 5 == np.round(found * 5)).all()


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(2, 5))
def test_hospitals_that_answer_are_the_pooled_rows(seed, hospitals, size):
    """To 1e-10, for any split: sums of some hundred float64 terms in another order."""
    generator = torch.Generator().manual_seed(seed)
    weights = random_dag(size, size * (size - 1) // 4 + 1, generator)
    uniform = torch.rand((600, size), generator=generator, dtype=torch.float64).numpy()
    rows = (-np.log1p(-uniform) - 1) @ np.linalg.inv(np.eye(size) - weights)
    cuts = np.sort(torch.randint(100, 500, (hospitals - 1,), generator=generator).numpy())
    parts = [part for part in np.split(rows, cuts) if len(part) > size]
    rows = np.concatenate(parts)
    pooled, together = DirectLingam().fit(rows), fit_pooled(row_sites(parts))
    assert together.causal_order_ == pooled.causal_order_
    np.testing.assert_allclose(
        together.adjacency_matrix_, pooled.adjacency_matrix_, rtol=1e-10, atol=1e-10
    )


def test_nobody_is_refused():
    with pytest.raises(BadInput, match="no hospitals"):
        fit_pooled([])


def test_order_agrees_with_the_package_lingam(rows_of):
    """Where it is installed: the same order on systems of 4 to 8 variables."""
    lingam = pytest.importorskip("lingam")
    for seed in range(5):
        weights = random_dag(4 + seed, 2 * seed + 4, torch.Generator().manual_seed(seed))
        rows = rows_of(weights, 1500, seed)
        theirs = lingam.DirectLiNGAM().fit(rows)
        assert DirectLingam().fit(rows).causal_order_ == theirs.causal_order_


def test_scores_by_hand():
    """One edge right, one turned, one missing: precision 1/2, recall 1/3, two pairs differ."""
    truth, found = np.zeros((3, 3)), np.zeros((3, 3))
    truth[1, 0] = truth[2, 1] = truth[2, 0] = 1.0
    found[1, 0], found[1, 2] = 0.5, 0.3
    scores = graph_scores(found, truth)
    assert scores["precision"] == 0.5
    assert scores["recall"] == pytest.approx(1 / 3)
    assert scores["f1"] == pytest.approx(0.4)
    assert scores["shd"] == 2
    # Of 3 true and 6 other entries, 0.5 outranks all six, two zeros tie five and lose to one.
    assert scores["auc"] == pytest.approx((6 + 2 * 2.5) / 18)
    assert order_agreement([0, 1, 2], truth) == 1
    assert order_agreement([2, 1, 0], truth) == 0
    assert order_agreement([0], np.zeros((1, 1))) == 1
