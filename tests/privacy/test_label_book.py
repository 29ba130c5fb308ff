"""Labels drawn once a run: charged once, the same ever after, and gone with their coins."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from wardround.privacy.errors import LedgerError
from wardround.privacy.events import NOTHING, RandomisedResponse, Repeated
from wardround.privacy.label_book import LABELS, LabelBook
from wardround.privacy.labels import keep_probability, randomise_labels
from wardround.privacy.mechanisms import Mechanism, Mode, PrivacyPlan
from wardround.privacy.units import Adjacency, Unit

EVENT = RandomisedResponse(keep_probability(1.0, 2), 2)
IDS = [f"r{number}" for number in range(200)]
TRUTH = (torch.arange(200) % 3 == 0).long()
PLAN = PrivacyPlan(
    unit=Unit.LABEL, clip_norm=1.0, noise_multiplier=0.0, sampling_rate=0.5, steps=3,
    expected_units=1.0, adjacency=Adjacency.REPLACE_ONE, mechanism=Mechanism.LABELS,
    keep_probability=EVENT.keep_probability,
)  # fmt: skip


def test_labels_are_drawn_and_charged_once(tmp_path, reserve, stream):
    book = LabelBook(tmp_path / "labels")
    paid = reserve(EVENT)
    assert book.drawn_in(paid.run) is None
    first = book.draw(IDS, TRUTH, EVENT, paid, stream)
    assert first.event == EVENT
    assert (first.value[LABELS] != TRUTH).any()
    # Another process, another round, nothing charged: the coins have fallen.
    later = LabelBook(tmp_path / "labels").draw(IDS, TRUTH, EVENT, paid, stream)
    assert later.event == NOTHING
    assert torch.equal(later.value[LABELS], first.value[LABELS])
    assert book.drawn_in(paid.run) == paid.round
    # What is true by now does not matter any more, or a changed label would show.
    turned = book.draw(IDS, 1 - TRUTH, EVENT, paid, stream)
    assert torch.equal(turned.value[LABELS], first.value[LABELS])


def test_without_a_charge_nothing_is_drawn(tmp_path, reserve, stream):
    book = LabelBook(tmp_path / "labels")
    with pytest.raises(LedgerError, match="charged no more"):
        book.draw(IDS, TRUTH, EVENT, reserve(NOTHING), stream)
    assert not list(tmp_path.glob("labels/*"))


def test_other_records_are_refused(tmp_path, reserve, stream):
    book, paid = LabelBook(tmp_path / "labels"), reserve(EVENT)
    book.draw(IDS, TRUTH, EVENT, paid, stream)
    with pytest.raises(LedgerError, match="are not those whose labels were drawn"):
        book.draw([*IDS[1:], "new"], TRUTH, EVENT, paid, stream)
    (page,) = (tmp_path / "labels").iterdir()
    whole = page.read_bytes()
    for damaged in (whole[:-9], whole.replace(b'"run":"', b'"run":"x'), b"[]"):
        page.write_bytes(damaged)
        with pytest.raises(LedgerError, match="is damaged"):
            book.drawn_in(paid.run)


@pytest.mark.statistical
def test_drawing_anew_every_round_would_undo_the_coins(tmp_path, reserve, stream):
    """The broken twin: the majority of 101 fresh draws gives nearly every label away.

    A label is kept with probability 0.731; a majority of 101 errs with probability below 1e-6, so
    200 labels come out wrong once in 5,000 runs at most. The book's draws stay as noised as one.
    """
    many = reserve(Repeated(EVENT, 101))
    draws = [randomise_labels(TRUTH, EVENT, many, stream).value[LABELS] for _ in range(101)]
    fresh = torch.stack(draws)
    assert torch.equal((fresh.double().mean(0) > 0.5).long(), TRUTH)
    book, paid = LabelBook(tmp_path / "labels"), reserve(EVENT)
    kept = torch.stack(
        [book.draw(IDS, TRUTH, EVENT, paid, stream).value[LABELS] for _ in range(101)]
    )
    wrong = int(((kept.double().mean(0) > 0.5).long() != TRUTH).sum())
    # 200 labels flip with probability 0.269: fewer than 20 in one of 1e9 runs.
    assert wrong > 20


def test_a_run_costs_what_one_draw_costs():
    assert PLAN.event == EVENT
    assert PLAN.over(30) == EVENT
    assert PLAN.paid_once
    assert PLAN.flip_probability == pytest.approx(1 / (1 + torch.e))
    gaussian = replace(
        PLAN, unit=Unit.RECORD, noise_multiplier=1.0, adjacency=Adjacency.ADD_REMOVE,
        mechanism=Mechanism.DP_SGD, keep_probability=None,
    )  # fmt: skip
    assert gaussian.over(30) != gaussian.event


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"unit": Unit.RECORD}, "go together"),
        ({"keep_probability": None}, "go together"),
        ({"adjacency": Adjacency.ADD_REMOVE}, "of labels it must be replace-one"),
        ({"mode": Mode.NONE}, "mode local"),
        ({"noise_multiplier": 1.0}, "0 in mode none and for labels"),
    ],
)
def test_plans_that_would_promise_something_else_are_refused(change, what):
    with pytest.raises(ValueError, match=what):
        replace(PLAN, **change)
