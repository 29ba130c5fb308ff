"""The generated world: unique names, one fact for each drug and relation, natural sentences."""

from __future__ import annotations

import pytest

from wardround.client.tasks.editing.world import (
    PHRASING_COUNT,
    PHRASINGS,
    SUFFIXES,
    Fact,
    Relation,
    World,
)

WORLD = World()


def test_world_has_one_fact_for_each_drug_and_relation():
    assert len(set(WORLD.names)) == 240
    assert len(WORLD.facts) == 240 * 4
    assert {(fact.drug, fact.relation) for fact in WORLD.facts} == {
        (drug, relation) for drug in WORLD.names for relation in Relation
    }


def test_objects_carry_their_kind():
    for fact in WORLD.facts:
        if fact.relation is Relation.INTERACTS:
            assert fact.value in WORLD.names
            assert fact.value != fact.drug
        else:
            assert fact.value.endswith(SUFFIXES[fact.relation])
            assert fact.value.islower()


def test_equal_seeds_give_equal_worlds_and_others_do_not():
    assert World(seed=0).facts == WORLD.facts
    assert World(seed=1).names != WORLD.names


def test_phrasings_are_different_and_hold_the_drug_inside():
    texts = [text for texts in PHRASINGS.values() for text in texts]
    assert len(set(texts)) == len(texts) == 4 * PHRASING_COUNT
    # At the start of a sentence a name has other tokens than inside, so it never stands there.
    assert all(text.count("{drug}") == 1 and " {drug}" in text for text in texts)


def test_prompt_is_a_sentence_about_the_drug():
    fact = Fact("Baketo", Relation.TREATS, "takosis")
    assert fact.prompt(0) == "Which disease is Baketo used to treat?"


@pytest.mark.parametrize(("field", "value"), [("drugs", 1), ("drugs", 85751), ("objects", 1)])
def test_sizes_out_of_range_are_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} is {value}"):
        World(**{field: value})
