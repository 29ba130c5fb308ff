"""What one record of the task is: a spoken question and its spoken answer, and what both say."""

from __future__ import annotations

from dataclasses import dataclass

from wardround.client.tasks.base import Record
from wardround.client.tasks.spectron.audio import Sound
from wardround.privacy import Unit


@dataclass(frozen=True)
class Exchange:
    """A question and its answer; of speech to be continued, its beginning and its rest.

    Attributes:
        question: What is listened to.
        answer: What should be said.
        question_text: What the question says.
        answer_text: What the answer says.
    """

    question: Sound
    answer: Sound
    question_text: str
    answer_text: str


def exchange_record(name: str, exchange: Exchange, speaker: str, patient: str = "") -> Record:
    """A record of its speaker's, and of a patient's where one is named."""
    owners = {Unit.RECORD: name, Unit.SPEAKER: speaker}
    if patient:
        owners[Unit.PATIENT] = patient
    return Record(name, owners, exchange)
