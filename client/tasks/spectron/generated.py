"""A made-up ward that is spoken to: a closed set of medical questions, in voices that are drawn.

The embedded base knows the public questions in many voices; each hospital's speakers also ask its
own, which no base has heard. Answers are spoken in the voice of whoever asked. Everything is public
and repeatable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wardround.client.tasks.base import Record
from wardround.client.tasks.draws import Draws
from wardround.client.tasks.spectron.audio import encode, in_memory
from wardround.client.tasks.spectron.records import Exchange, exchange_record
from wardround.client.tasks.spectron.voices import Voice, chords, draw_voice

PUBLIC = {
    "what is a fever": "high heat",
    "how many lungs": "two lungs",
    "what pumps blood": "the heart",
    "who gives pills": "a nurse",
    "what helps a cough": "honey",
    "when to call": "if it gets worse",
    "what cools a burn": "tap water",
    "what is in a bone": "calcium",
}
LOCAL = {
    "where is the ward": "third floor",
    "who is on call": "doctor lin",
    "when is lunch": "at noon",
    "what is the code": "blue",
}


@dataclass(frozen=True)
class WardShape:
    """How large a generated study is.

    Attributes:
        speakers_per_hospital: Voices at each hospital.
        questions: What each of them asks.
        local_share: In percent, how many of those are the hospital's own questions.
        probes: Voices to evaluate on; each asks every question.
    """

    speakers_per_hospital: int = 48
    questions: int = 4
    local_share: int = 75
    probes: int = 3

    def __post_init__(self) -> None:
        for name in ("speakers_per_hospital", "questions", "probes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if not 0 <= self.local_share <= 100:
            raise ValueError(f"local_share is {self.local_share}; it must be 0 to 100 percent")


def make_ward(shape: WardShape, hospital: str, seed: int) -> list[Record]:
    """One hospital's exchanges; equal arguments give equal ones."""
    draws = Draws(seed, f"spectron/{hospital}")
    records = []
    for number in range(shape.speakers_per_hospital):
        speaker, voice = f"{hospital}-s{number:04d}", draw_voice(draws)
        for place in range(shape.questions):
            source = LOCAL if draws.below(100) < shape.local_share else PUBLIC
            asked = draws.choice(list(source))
            records.append(_spoken(f"{speaker}-q{place}", asked, source[asked], voice, speaker))
    return records


def make_probes(shape: WardShape, seed: int) -> list[Record]:
    """Every question, public and local, in voices that nobody trains on."""
    draws = Draws(seed, "spectron/probes")
    voices = [draw_voice(draws) for _ in range(shape.probes)]
    return in_voices({**PUBLIC, **LOCAL}, voices, "probe")


def in_voices(said: dict[str, str], voices: Sequence[Voice], name: str) -> list[Record]:
    """Every question in every voice."""
    return [
        _spoken(f"{name}-s{number:04d}-q{place}", asked, told, voice, f"{name}-s{number:04d}")
        for number, voice in enumerate(voices)
        for place, (asked, told) in enumerate(said.items())
    ]


def _spoken(name: str, asked: str, told: str, voice: Voice, speaker: str) -> Record:
    """One exchange in chord speech."""
    question, answer = (in_memory(encode(chords(text, voice))) for text in (asked, told))
    return exchange_record(name, Exchange(question, answer, asked, told), speaker)
