"""The generated ward: two vocabularies, charts as lists, a pool that is fair to BM25."""

from __future__ import annotations

from itertools import pairwise

import pytest

from wardround.client.tasks.draws import Draws
from wardround.client.tasks.ranking.evaluation import FIRST_STAGE, evaluate_run
from wardround.client.tasks.ranking.generated import WardShape, make_ward
from wardround.client.tasks.ranking.world import FILLERS, RankingWorld, weak_pairs
from wardround.privacy import Unit

WORLD = RankingWorld()
SHAPE = WardShape(records_per_hospital=40, probes=40)
CLINICAL = {clinical for clinical, _ in WORLD.words}
LAY = [lay for _, lay in WORLD.words]
PUBLIC, HELD_BACK = set(LAY[: WORLD.public_findings]), set(LAY[WORLD.public_findings :])


@pytest.fixture(scope="module")
def ward():
    return make_ward(SHAPE, 2, 0)


def test_the_two_vocabularies_share_no_word():
    assert len(CLINICAL | set(LAY)) == 2 * WORLD.findings
    assert not (CLINICAL | set(LAY)) & set(FILLERS)


def test_public_pairs_never_use_the_hospitals_words():
    words = {word for pair in weak_pairs(WORLD, 500, 1) for text in pair for word in text.split()}
    assert not words & HELD_BACK
    assert words >= PUBLIC


def test_about_15_percent_of_weak_pairs_do_not_belong_together():
    meaning = {word: n for n, pair in enumerate(WORLD.words) for word in pair}

    def about(text):
        return {meaning[word] for word in text.split() if word in meaning}

    pairs = weak_pairs(WORLD, 1000, 2)
    wrong = sum(about(note) != about(question) for note, question in pairs) / len(pairs)
    # 15 percent are redrawn over 780 pairs; 5 standard deviations of 1000 draws are 0.056.
    assert abs(wrong - 0.15 * (1 - 1 / 780)) < 0.056


def test_hospital_lists_are_one_patients_chart(ward):
    for records in ward.hospitals:
        assert len(records) == SHAPE.records_per_hospital
        for record in records:
            patient = record.owners[Unit.PATIENT]
            candidates = record.content.candidates
            assert len(candidates) == 6  # notes about all pairs of four findings
            assert {candidate.patient for candidate in candidates} == {patient}
            assert sum(candidate.grade for candidate in candidates) == 1
        charts = [{c.id for c in record.content.candidates} for record in records]
        assert all(a == b or not a & b for a, b in pairwise(charts))


def test_hospital_questions_use_the_words_that_are_held_back(ward):
    words = {w for part in ward.hospitals for r in part for w in r.content.text.split()}
    assert len(words & HELD_BACK) > len(HELD_BACK) / 2


def test_pool_is_fair(ward):
    meaning = {clinical: n for n, (clinical, _) in enumerate(WORLD.words)}
    for record in ward.probes:
        candidates = record.content.candidates
        assert len(candidates) == SHAPE.pool
        (answer,) = [c for c in candidates if c.grade]
        about = {meaning[w] for w in answer.text.split() if w in meaning}
        shared = [
            len(about & {meaning[w] for w in c.text.split() if w in meaning}) for c in candidates
        ]
        assert shared.count(2) == 1
        assert shared.count(1) >= SHAPE.pool_near
    scores = {r.id: {c.id: c.score for c in r.content.candidates} for r in ward.probes}
    found = evaluate_run(ward.probes, scores, ["nDCG@10"])
    # Better than a random order of 20, whose expectation is sum over ranks 1..10 of 1/log2(r+1)
    # over 20, 0.227, and far from perfect: two words of three are lay.
    assert 0.25 < found["nDCG@10"] < 0.6
    assert found["nDCG@10"] == found[FIRST_STAGE + "nDCG@10"]


def test_equal_seeds_give_equal_wards(ward):
    assert make_ward(SHAPE, 2, 0) == ward
    assert make_ward(SHAPE, 2, 1) != ward
    assert make_ward(SHAPE, 1, 0).hospitals[0] == ward.hospitals[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"findings": 3}, "findings is 3"),
        ({"public_findings": 41}, "public_findings is 41; expected 0 to 40"),
        ({"lay_share": 101}, "lay_share is 101"),
    ],
)
def test_world_bounds(change, message):
    with pytest.raises(ValueError, match=message):
        RankingWorld(**change)


def test_draws_decide_everything():
    note = WORLD.note((0, 1), Draws(1, "x"))
    assert note == WORLD.note((0, 1), Draws(1, "x"))
