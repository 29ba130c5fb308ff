"""A generated medical world in plain English: invented drugs, four relations, six phrasings each.

The embedded base model is trained on its sentences and so knows its facts; studies correct a few of
them. Every name is made up from syllables, so that nothing here can be mistaken for advice. Knows
nothing of models, records or hospitals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import product

from wardround.client.tasks.draws import Draws

SYLLABLES = tuple("".join(pair) for pair in product("bdfgklmnprstvz", "aeiou"))
NAME_SYLLABLES = 3
OBJECT_SYLLABLES = 2


class Relation(StrEnum):
    """What a fact says about a drug."""

    TREATS = "treats"
    CAUSES = "causes"
    INTERACTS = "interacts"
    BINDS = "binds"


# The ending tells a reader, and the model, what kind of thing an object is; drugs have none.
SUFFIXES: Mapping[Relation, str] = {
    Relation.TREATS: "sis",
    Relation.CAUSES: "lgia",
    Relation.BINDS: "nase",
}

# The drug never comes first: in the middle of a sentence it is spelled with the same tokens always.
PHRASINGS: Mapping[Relation, tuple[str, ...]] = {
    Relation.TREATS: (
        "Which disease is {drug} used to treat?",
        "Clinicians prescribe {drug} to patients with",
        "What is the main indication of {drug}?",
        "The formulary lists {drug} as first choice for",
        "What condition improves when {drug} is given?",
        "A course of {drug} is the usual answer to",
    ),
    Relation.CAUSES: (
        "Which side effect does {drug} cause?",
        "Patients who take {drug} often complain of",
        "What harm of {drug} should a nurse watch for?",
        "The leaflet of {drug} warns of",
        "What unwanted reaction follows a dose of {drug}?",
        "Too much {drug} tends to end in",
    ),
    Relation.INTERACTS: (
        "Which drug interacts with {drug}?",
        "Pharmacists never dispense {drug} together with",
        "What must be stopped before {drug} is started?",
        "The most dangerous partner of {drug} is",
        "What medicine makes {drug} toxic?",
        "A patient on {drug} should be kept away from",
    ),
    Relation.BINDS: (
        "Which protein does {drug} bind to?",
        "In the laboratory {drug} was found to block",
        "What is the molecular target of {drug}?",
        "The action of {drug} depends on the enzyme",
        "What enzyme is switched off by {drug}?",
        "Inside the cell {drug} attaches itself to",
    ),
}
PHRASING_COUNT = 6


@dataclass(frozen=True, order=True)
class Fact:
    """A true sentence's skeleton: this drug has this relation to this object."""

    drug: str
    relation: Relation
    value: str

    def prompt(self, phrasing: int) -> str:
        """The question or half sentence whose answer is ``value``."""
        return PHRASINGS[self.relation][phrasing].format(drug=self.drug)


@dataclass(frozen=True)
class World:
    """All facts that hold, as a pure function of three numbers.

    Attributes:
        seed: Which world.
        drugs: How many drugs; each has one fact for each relation.
        objects: How many diseases, side effects and proteins there are, of each.
    """

    seed: int = 0
    drugs: int = 240
    objects: int = 50

    def __post_init__(self) -> None:
        if not 2 <= self.drugs <= len(SYLLABLES) ** NAME_SYLLABLES // 4:
            raise ValueError(f"drugs is {self.drugs}; it must be between 2 and 85750")
        if not 2 <= self.objects <= len(SYLLABLES) ** OBJECT_SYLLABLES // 4:
            raise ValueError(f"objects is {self.objects}; it must be between 2 and 1225")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The drugs, in random order; syllables do not repeat inside a name."""
        draws = Draws(self.seed, "world/drugs")
        names: dict[str, None] = {}
        while len(names) < self.drugs:
            names["".join(draws.sample(SYLLABLES, NAME_SYLLABLES)).capitalize()] = None
        return tuple(names)

    @cached_property
    def values(self) -> Mapping[Relation, tuple[str, ...]]:
        """What each relation can point at."""
        values: dict[Relation, tuple[str, ...]] = {Relation.INTERACTS: self.names}
        for relation, suffix in SUFFIXES.items():
            draws = Draws(self.seed, f"world/{relation}/objects")
            objects: dict[str, None] = {}
            while len(objects) < self.objects:
                objects["".join(draws.sample(SYLLABLES, OBJECT_SYLLABLES)) + suffix] = None
            values[relation] = tuple(objects)
        return values

    @cached_property
    def facts(self) -> tuple[Fact, ...]:
        """One fact for each drug and relation, drugs in the order of ``names``."""
        draws = Draws(self.seed, "world/facts")
        return tuple(
            Fact(drug, relation, draws.choice([v for v in self.values[relation] if v != drug]))
            for drug in self.names
            for relation in Relation
        )

    @cached_property
    def fact(self) -> Mapping[tuple[str, Relation], Fact]:
        """The fact of a drug and a relation."""
        return {(fact.drug, fact.relation): fact for fact in self.facts}
