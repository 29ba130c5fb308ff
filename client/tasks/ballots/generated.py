"""Made-up agendas and ballots: candidate answers to patients, and sites that disagree about them.

The candidates are the ways a nurse of the made-up world of advice may answer. Every site cares for
other parts of an answer, every clinician a little differently; nothing is private.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wardround.client.tasks.ballots.agenda import Agenda
from wardround.client.tasks.ballots.formats import Ballot
from wardround.client.tasks.base import Record
from wardround.client.tasks.draws import Draws
from wardround.client.tasks.preference.advice import COMPLAINTS, PARTS, prompt
from wardround.privacy import Unit

# What an answer is made of; each agenda puts these to the vote.
WAYS = (("advice",), ("kind", "advice"), ("advice", "call"), ("advice", "filler"))
# What a part is worth at the sites, by turns: kindness, brevity, safety, and everything.
TASTES = (
    {"kind": 2.0, "filler": -0.5, "call": 0.8},
    {"kind": -0.6, "filler": -1.0, "call": 0.4},
    {"kind": 0.2, "filler": -0.5, "call": 2.0},
    {"kind": 1.0, "filler": 0.6, "call": 1.4},
)


@dataclass(frozen=True)
class BallotShape:
    """How large a generated vote is.

    Attributes:
        agendas: Questions put to the vote.
        clinicians_per_hospital: Who vote on all of them.
        seed: Public; of the questions.
    """

    agendas: int = 6
    clinicians_per_hospital: int = 60
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("agendas", "clinicians_per_hospital"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more")


def make_agendas(shape: BallotShape) -> tuple[Agenda, ...]:
    """The questions; the same shape gives the same ones."""
    draws = Draws(shape.seed, "ballots/agendas")
    agendas: dict[str, Agenda] = {}
    while len(agendas) < shape.agendas:
        asked, complaint = prompt(draws, held_out=False)
        if asked not in agendas:
            texts = {**{name: text for name, (text, _) in PARTS.items()}}
            texts["advice"] = COMPLAINTS[complaint]
            candidates = tuple(" ".join(texts[part] for part in way) for way in WAYS)
            agendas[asked] = Agenda(f"a{len(agendas):03d}", candidates, asked)
    return tuple(agendas.values())


def make_ballots(
    agendas: Sequence[Agenda], clinicians: int, hospital: int, seed: int
) -> list[Record]:
    """All ballots of one hospital: the parts it cares for, and each clinician's own mind."""
    draws = Draws(seed, f"ballots/hospital/{hospital}")
    taste = TASTES[hospital % len(TASTES)]
    records = []
    for number in range(clinicians):
        clinician = f"h{hospital}-c{number:04d}"
        for agenda in agendas:
            worth = [
                sum(size for part, size in taste.items() if PARTS[part][0] in text)
                + (draws.below(2001) - 1000) / 800
                for text in agenda.candidates
            ]
            order = [
                place for _, place in sorted((-size, place) for place, size in enumerate(worth))
            ]
            identifier = f"{clinician}-{agenda.id}"
            owners = {Unit.CLINICIAN: clinician, Unit.RECORD: identifier}
            ballot = Ballot(agenda.id, tuple((place,) for place in order))
            records.append(Record(identifier, owners, ballot))
    return records
