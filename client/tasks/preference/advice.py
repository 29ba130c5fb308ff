"""A made-up world of advice: what a nurse might answer, and what clinicians would rather read.

An answer is put together from parts, each there or not by its own coin, so that the base's habits
are known exactly. Clinicians prefer kind answers that say when to call, and do not like fillers;
sites differ in how much. Everything is public and repeatable.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from wardround.client.tasks.base import Record
from wardround.client.tasks.draws import Draws
from wardround.client.tasks.preference.records import Judged
from wardround.privacy import Unit

COMPLAINTS: Mapping[str, str] = {
    "a sore throat": "Warm drinks help.",
    "a headache": "Rest in a dark room.",
    "a cough": "Honey in tea helps.",
    "a sprained ankle": "Keep the leg up and cool it.",
    "back pain": "Keep moving gently.",
    "a mild fever": "Drink plenty of water.",
    "heartburn": "Eat small meals.",
    "a blocked nose": "Salt water spray helps.",
    "a small burn": "Cool it under the tap.",
    "an itchy rash": "A plain cream helps.",
    "sore eyes": "Rest them from screens.",
    "a stiff neck": "A warm towel helps.",
}
SINCE = ("since this morning", "since yesterday", "for two days", "for three days", "for a week")
WHO = ("I have", "My son has", "My daughter has", "My mother has", "My father has")
PARTS: Mapping[str, tuple[str, int]] = {  # text, and in how many of 100 answers it stands
    "kind": ("I am sorry to hear that.", 30),
    "advice": ("", 100),
    "filler": ("Most people feel better soon anyway.", 60),
    "call": ("Call us if it gets worse.", 25),
}
# What one part is worth to a clinician of the average site; [task.reward] spells the same.
WORTH: Mapping[str, float] = {"kind": 1.0, "advice": 0.0, "filler": -0.5, "call": 1.5}
SHARPNESS = 2.0  # of the Bradley-Terry choice between two answers


@dataclass(frozen=True)
class AdviceShape:
    """How large a generated study is.

    Attributes:
        records_per_hospital: Judged pairs at each hospital.
        clinicians: Who judged them, by turns.
        probes: Prompts to evaluate on; complaints and durations combine differently there.
    """

    records_per_hospital: int = 240
    clinicians: int = 12
    probes: int = 60

    def __post_init__(self) -> None:
        for name in ("records_per_hospital", "clinicians", "probes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more")


def prompt(draws: Draws, held_out: bool) -> tuple[str, str]:
    """What is asked, and the complaint; a fifth of the combinations is held out for probes."""
    while True:
        who, complaint, since = (
            draws.choice(WHO),
            draws.choice(list(COMPLAINTS)),
            draws.choice(SINCE),
        )
        place = WHO.index(who) + list(COMPLAINTS).index(complaint) + SINCE.index(since)
        if (place % 5 == 0) == held_out:
            return f"Patient: {who} {complaint} {since}. Nurse:", complaint


def answer(draws: Draws, complaint: str) -> tuple[str, float]:
    """An answer as the base gives it, and its worth."""
    said, worth = [], 0.0
    for name, (text, share) in PARTS.items():
        if draws.below(100) < share:
            said.append(text or COMPLAINTS[complaint])
            worth += WORTH[name]
    return " ".join(said), worth


def make_study(
    shape: AdviceShape, hospitals: int, seed: int
) -> tuple[list[list[Record]], list[Record]]:
    """Judged pairs for each hospital, and probes; the same arguments give the same records."""
    shares = []
    for number in range(hospitals):
        draws = Draws(seed, f"preference/hospital/{number}")
        shares.append(
            [
                _judged(draws, f"h{number}-{place:05d}", f"h{number}-c{place % shape.clinicians}")
                for place in range(shape.records_per_hospital)
            ]
        )
    draws = Draws(seed, "preference/probes")
    probes = [
        _judged(draws, f"probe-{place:05d}", "", held_out=True) for place in range(shape.probes)
    ]
    return shares, probes


def _judged(draws: Draws, identifier: str, clinician: str, held_out: bool = False) -> Record:
    """Two different answers, the better one chosen with the odds of Bradley and Terry."""
    asked, complaint = prompt(draws, held_out)
    first = answer(draws, complaint)
    second = answer(draws, complaint)
    while second[0] == first[0]:
        second = answer(draws, complaint)
    odds = 1 / (1 + math.exp(-SHARPNESS * (first[1] - second[1])))
    prefers_first = draws.below(10**6) < odds * 10**6
    chosen, rejected = (first, second) if prefers_first else (second, first)
    owners = {Unit.RECORD: identifier}
    if clinician:
        owners[Unit.CLINICIAN] = clinician
    return Record(identifier, owners, Judged(asked, (chosen[0], rejected[0]), (1.0, 0.0)))


def corpus(count: int, seed: int) -> list[tuple[str, str]]:
    """Prompts and answers for a base to learn its habits from, held-out prompts included."""
    draws = Draws(seed, "preference/corpus")
    rows = []
    for place in range(count):
        asked, complaint = prompt(draws, held_out=place % 5 == 0)
        rows.append((asked, answer(draws, complaint)[0]))
    return rows
