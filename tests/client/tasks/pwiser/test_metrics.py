"""AUC against its definition and scikit-learn, the grouped measure and calibration by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.client.tasks.draws import Draws
from wardround.client.tasks.pwiser import metrics


def by_pairs(labels, scores):
    """One minus the zero-one pair loss, ties counting half."""
    pairs = [
        1.0 if one > other else 0.5 if one == other else 0.0
        for one, label in zip(scores, labels, strict=True)
        if label
        for other, its in zip(scores, labels, strict=True)
        if not its
    ]
    return sum(pairs) / len(pairs) if pairs else None


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=30))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_auc_is_its_definition(rows) -> None:
    labels = np.array([float(label) for label, _ in rows])
    scores = np.array([float(score) for _, score in rows])
    found, wanted = metrics.auc(labels, scores), by_pairs(labels, scores)
    assert found == (None if wanted is None else pytest.approx(wanted, abs=1e-12))


def test_auc_is_that_of_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    draws = Draws(3, "auc")
    labels = np.array([float(draws.below(10) < 3) for _ in range(200)])
    scores = np.array([float(draws.below(20)) for _ in range(200)])
    assert metrics.auc(labels, scores) == pytest.approx(sklearn.roc_auc_score(labels, scores))


def test_grouped_auc_weighs_groups_by_their_rows() -> None:
    # Group a: one pair in order (1.0) of 2 rows; b: one of two pairs (0.5) of 3 rows; c has none.
    labels = np.array([1.0, 0, 1, 0, 0, 0])
    scores = np.array([0.9, 0.1, 0.5, 0.6, 0.4, 0.3])
    found = metrics.grouped_auc(labels, scores, list("aabbbc"))
    assert found == pytest.approx((1.0 * 2 + 0.5 * 3) / 5)
    assert metrics.grouped_auc(labels[-1:], scores[-1:], ["c"]) is None


def test_log_loss_and_calibration_by_hand() -> None:
    labels, chances = np.array([1.0, 0.0]), np.array([0.8, 0.4])
    assert metrics.log_loss(labels, chances) == pytest.approx(-(np.log(0.8) + np.log(0.6)) / 2)
    assert metrics.calibration(labels, chances) == pytest.approx(1.2)
    assert metrics.calibration(labels * 0, chances) is None
    # Two bins of one row each: |1 - .8| and |0 - .4|, a half each.
    assert metrics.calibration_error(labels, chances) == pytest.approx(0.3)
