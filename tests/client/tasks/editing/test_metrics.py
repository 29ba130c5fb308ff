"""Scores against values worked out by hand."""

from __future__ import annotations

import pytest

from wardround.client.tasks.editing.metrics import (
    exact_match,
    locality,
    published_average,
    token_accuracy,
)


@pytest.mark.parametrize(
    ("predicted", "target", "tokens", "exact"),
    [([1, 2, 3], [1, 2, 3], 1.0, 1.0), ([1, 9, 3], [1, 2, 3], 2 / 3, 0.0), ([4], [5], 0.0, 0.0)],
)
def test_accuracy_counts_places(predicted, target, tokens, exact):
    assert token_accuracy(predicted, target) == pytest.approx(tokens)
    assert exact_match(predicted, target) == exact


def test_locality_is_agreement_with_before_and_not_with_the_truth():
    # The model was wrong before (7 for 5) and is still wrong in the same way: nothing was harmed.
    assert locality(before=[7, 6], after=[7, 6]) == 1.0
    assert locality(before=[7, 6], after=[5, 6]) == 0.5


@pytest.mark.parametrize(("predicted", "target"), [([], []), ([1], [1, 2])])
def test_unequal_or_empty_answers_are_refused(predicted, target):
    with pytest.raises(ValueError, match="predictions for"):
        token_accuracy(predicted, target)


def test_average_gives_edits_and_locality_half_each():
    # The published first row of single edits: efficacy and generality 100, localities
    # 58.3, 50.0, 79.2, 62.5, average 81.2 in percent.
    localities = {"a": 0.583, "b": 0.500, "c": 0.792, "d": 0.625}
    assert published_average(1.0, 1.0, localities) == pytest.approx(0.812, abs=5e-4)


def test_average_without_rephrased_prompts_rests_on_efficacy():
    assert published_average(0.5, None, {"a": 1.0}) == 0.75
