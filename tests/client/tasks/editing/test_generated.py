"""Generated studies: corrected, probed and restated facts are apart, and support is as asked."""

from __future__ import annotations

from collections import Counter

import pytest

from wardround.client.tasks.editing.generated import StudyShape, make_study
from wardround.client.tasks.editing.records import PUBLISHED_LOCALITY
from wardround.client.tasks.editing.world import PHRASING_COUNT, World
from wardround.privacy import Unit
from wardround.privacy.errors import BadInput

WORLD = World()
SHAPE = StudyShape()
STUDY = make_study(SHAPE, 4, seed=7)
# What a prompt asks about, from the world's own sentences.
ASKS = {
    fact.prompt(k): (fact.drug, fact.relation)
    for fact in WORLD.facts
    for k in range(PHRASING_COUNT)
}
TRUE = {(fact.drug, fact.relation): fact.value for fact in WORLD.facts}
RECORDS = [record for hospital in STUDY.hospitals for record in hospital]


def _corrected():
    return {ASKS[probe.content.prompt]: probe for probe in STUDY.probes}


def _probed():
    return {
        ASKS[p.prompt]
        for record in STUDY.probes
        for probes in record.content.locality.values()
        for p in probes
    }


def test_corrected_probed_and_restated_facts_are_disjoint():
    corrected = set(_corrected())
    restated = {ASKS[r.content.prompt] for r in RECORDS} - corrected
    assert len(corrected) == 24
    assert len(restated) <= SHAPE.filler_facts
    assert corrected.isdisjoint(_probed())
    assert corrected.isdisjoint(restated)
    assert _probed().isdisjoint(restated)


def test_every_record_says_a_correction_or_a_truth():
    corrected = _corrected()
    for record in RECORDS:
        asked = ASKS[record.content.prompt]
        wanted = corrected[asked].content.target_new if asked in corrected else TRUE[asked]
        assert record.content.target_new == wanted


def test_corrections_change_the_answer_and_probes_are_true():
    for probe in STUDY.probes:
        truth = TRUE[ASKS[probe.content.prompt]]
        assert probe.content.ground_truth == truth != probe.content.target_new
        for probes in probe.content.locality.values():
            assert all(p.answer == TRUE[ASKS[p.prompt]] for p in probes)


def test_support_is_as_asked_and_spread():
    corrected = _corrected()
    for kind, support in (("corroborated", 64), ("weak", 16), ("single", 1)):
        facts = [asked for asked, probe in corrected.items() if probe.content.support == kind]
        assert len(facts) == 8
        for fact in facts:
            held = Counter(
                number
                for number, records in enumerate(STUDY.hospitals)
                for record in records
                if ASKS[record.content.prompt] == fact
            )
            assert sum(held.values()) == support
            # Dealt in turn over four hospitals: 16 each, 4 each, or one hospital alone.
            assert set(held.values()) == {max(1, support // 4)}


def test_sizes_are_as_asked_and_truths_are_the_majority():
    assert [len(records) for records in STUDY.hospitals] == [500] * 4
    # 8 * 64 + 8 * 16 + 8 = 648 corrections, 162 a hospital.
    assert STUDY.filler_share == pytest.approx(1 - 162 / 500)


def test_records_and_patients_are_told_apart():
    assert len({record.id for record in RECORDS}) == 2000
    assert all(record.owners[Unit.RECORD] == record.id for record in RECORDS)
    patients = [{record.owners[Unit.PATIENT] for record in records} for records in STUDY.hospitals]
    assert len(set.union(*patients)) == sum(map(len, patients))
    assert all(1 < 500 / len(names) < 4 for names in patients)


def test_generality_probes_use_phrasings_that_no_record_uses():
    trained = {prompt for record in RECORDS for prompt in record.content.prompts}
    for probe in STUDY.probes:
        assert len(probe.content.prompts) == 4
        assert len(probe.content.rephrase_prompts) == 2
        assert trained.isdisjoint(probe.content.rephrase_prompts)


def test_locality_kinds_are_what_they_are_called():
    kinds = Counter(kind for probe in STUDY.probes for kind in probe.content.locality)
    assert set(kinds) == {*PUBLISHED_LOCALITY, "random"} - {"consistent_topic"}
    assert min(kinds.values()) >= 20
    for probe in STUDY.probes:
        drug, relation = ASKS[probe.content.prompt]
        locality = {
            kind: [(ASKS[p.prompt], p.answer) for p in probes]
            for kind, probes in probe.content.locality.items()
        }
        for (other, same), answer in locality.get("target_distribution", []):
            assert other != drug
            assert (same, answer) == (relation, probe.content.ground_truth)
        for (same, other), _ in locality["entity_mapping"]:
            assert same == drug
            assert other is not relation
        for kind in ("structural", "textual"):
            for (other, same), _ in locality[kind]:
                assert other != drug
                assert same is relation
        assert len(locality["random"]) == SHAPE.random_probes


def test_equal_seeds_give_equal_studies_and_others_do_not():
    assert make_study(SHAPE, 4, seed=7) == STUDY
    assert make_study(SHAPE, 4, seed=8).probes != STUDY.probes


def test_phrasings_may_be_paraphrases_of_one_record():
    study = make_study(StudyShape(phrasings_per_record=3), 2, seed=1)
    for record in study.hospitals[0]:
        assert len(set(record.content.prompts)) == 3
        assert len({ASKS[prompt] for prompt in record.content.prompts}) == 1


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"records_per_hospital": 161}, "hospitals hold 644 records; .* take more"),
        ({"sizes": (100, 100)}, r"sizes names 2 hospitals; there are 4"),
        ({"filler_facts": 900}, "facts left for filler_facts"),
        ({"random_probes": 60}, "facts left for random_probes"),
        ({"single": 400}, "facts for .* corrections only"),
    ],
)
def test_studies_that_do_not_fit_are_refused(shape, message):
    with pytest.raises(BadInput, match=message):
        make_study(StudyShape(**shape), 4, seed=0)


@pytest.mark.parametrize(
    ("field", "value"),
    [("records_per_hospital", 0), ("weak", -1), ("weak_support", 0), ("phrasings_per_record", 5)],
)
def test_sizes_out_of_range_are_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} is {value}"):
        StudyShape(**{field: value})


def test_hospitals_may_differ_in_size_and_small_ones_pass_corrections_on():
    sizes = (400, 200, 60, 40)
    shape = StudyShape(sizes=sizes, corroborated=6, weak=0, single=1)
    study = make_study(shape, 4, seed=2)
    assert tuple(map(len, study.hospitals)) == sizes
    for probe in study.probes:
        edit = probe.content
        found = sum(
            (record.content.subject, record.content.target_new) == (edit.subject, edit.target_new)
            for records in study.hospitals
            for record in records
        )
        assert found == (64 if edit.support == "corroborated" else 1)


def test_all_support_may_lie_in_one_hospital():
    study = make_study(StudyShape(together=True, weak=0, single=0), 4, seed=2)
    for probe in study.probes:
        wanted = (probe.content.subject, probe.content.target_new)
        counts = [
            sum((r.content.subject, r.content.target_new) == wanted for r in records)
            for records in study.hospitals
        ]
        assert sorted(counts) == [0, 0, 0, 64]


def test_conflicting_corrections_have_two_answers_by_hospital():
    shape = StudyShape(corroborated=0, weak=0, single=0, conflicting=2)
    study = make_study(shape, 4, seed=2)
    for probe in study.probes:
        said = [
            {r.content.target_new for r in records if r.content.subject == probe.content.subject}
            for records in study.hospitals
        ]
        assert said[0] == said[2] == {probe.content.target_new}
        assert said[1] == said[3]
        assert len(said[1] | said[0]) == 2


def test_strong_support_is_its_own_kind():
    shape = StudyShape(strong=1, corroborated=0, weak=0, single=0)
    study = make_study(shape, 4, seed=2)
    (probe,) = study.probes
    assert probe.content.support == "strong"
    told = [r for records in study.hospitals for r in records
            if r.content.subject == probe.content.subject]  # fmt: skip
    assert len(told) == 256


def test_a_hospital_without_records_is_refused():
    with pytest.raises(ValueError, match="every hospital has at least 1 record"):
        StudyShape(sizes=(3, 0))
