"""Labels of preferences: found, replaced without a trace, and trained on as wrong as they are."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.client.labels import check_labels
from wardround.client.tasks.base import HasLabels, Record
from wardround.client.tasks.preference.records import Judged
from wardround.client.tasks.preference.task import PreferenceTask
from wardround.client.tasks.reward.task import RewardTask
from wardround.privacy import Unit
from wardround.privacy.errors import BadInput, PolicyRefused
from wardround.privacy.mechanisms import Mechanism, PrivacyPlan
from wardround.privacy.units import Adjacency

TASK = PreferenceTask()
ROBUST: dict[str, Any] = {"method": "robust", "loss": {"beta": 0.2}}


def judged(replies: tuple[str, ...], scores: tuple[float, ...]) -> list[Record]:
    likely = tuple(-float(len(reply)) - 1 for reply in replies)
    return [Record("r", {Unit.RECORD: "r"}, Judged("Q", replies, scores, reference=likely))]


texts = st.text(alphabet="abcxyz ", min_size=1, max_size=6)


@given(texts, texts, st.booleans(), st.booleans(), st.integers(0, 1), st.floats(0.1, 9))
@settings(max_examples=80, deadline=None)
def test_a_new_label_leaves_no_trace_of_the_old_one(
    one: str, other: str, turned: bool, swapped: bool, label: int, gap: float
) -> None:
    if one == other:
        return
    # The same two replies, written down either way round, preferred either way, by any distance.
    first = judged((one, other), (gap, 0.0))
    again = judged((other, one) if swapped else (one, other), (0.0, 1.0) if turned else (1.0, 0.0))
    assert TASK.relabel(first, [label]) == TASK.relabel(again, [label])
    assert list(TASK.labels(TASK.relabel(first, [label]))) == [label]
    own = list(TASK.labels(first))
    kept = TASK.relabel(first, own)[0].content
    assert kept.replies[kept.best] == one


def test_leaving_the_order_as_it_was_would_leave_a_trace() -> None:
    # The broken twin swaps scores only: chosen replies stand first, so the file's order tells all.
    first, second = judged(("b", "a"), (1.0, 0.0)), judged(("a", "b"), (1.0, 0.0))
    assert first[0].content.replies != second[0].content.replies
    assert TASK.relabel(first, [0]) == TASK.relabel(second, [0])


def test_settings_are_told_how_often_labels_are_wrong() -> None:
    assert isinstance(TASK, HasLabels)
    told = TASK.expecting_flips(ROBUST, 0.2)
    assert told["loss"] == {"beta": 0.2, "label_smoothing": 0.2}
    for config, what in (
        ({"method": "dpo"}, "need 'robust'"),
        ({"method": "robust", "loss": {"label_smoothing": 0.1}}, "flips 0.2"),
        (
            {**ROBUST, "sampling": {"share": 1.0}, "reward": {"per_word": 1.0}},
            "have no labels to hide",
        ),
    ):
        with pytest.raises(BadInput, match=what):
            TASK.expecting_flips(config, 0.2)


def test_tasks_without_labels_are_refused() -> None:
    plan = PrivacyPlan(
        unit=Unit.LABEL, clip_norm=1.0, noise_multiplier=0.0, sampling_rate=0.5, steps=1,
        expected_units=1.0, adjacency=Adjacency.REPLACE_ONE, mechanism=Mechanism.LABELS,
        keep_probability=0.6,
    )  # fmt: skip
    assert check_labels(TASK, ROBUST, plan)["loss"]["label_smoothing"] == pytest.approx(0.2)
    with pytest.raises(PolicyRefused, match="has no labels"):
        check_labels(RewardTask(), {}, plan)


@pytest.mark.parametrize("replies", [("a",), ("a", "a"), ("a", "b", "c")])
def test_records_without_such_a_label_are_refused(replies: tuple[str, ...]) -> None:
    with pytest.raises(BadInput, match="two different replies"):
        TASK.labels(judged(replies, tuple(map(float, range(len(replies))))))
