"""What one record of the ranking task is: a query with its whole list of candidate passages.

Knows nothing of files, models or hospitals. Grades are those of TREC: above 0 relevant, 0 judged
and not relevant, absent not judged. Source: Zhang et al. (2024), TSARankLLM, section 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from wardround.client.tasks.base import Record
from wardround.privacy import Unit


@dataclass(frozen=True)
class Candidate:
    """A passage that may answer a query.

    Attributes:
        id: Unique inside one list.
        text: What is read; a title, where there is one, comes first.
        grade: How relevant it was judged to be; None when nobody judged it.
        score: What the first stage gave it; None when it is not known.
        patient: Whose chart it comes from; empty when it is nobody's or not known.
    """

    id: str
    text: str
    grade: int | None = None
    score: float | None = None
    patient: str = ""

    def __post_init__(self) -> None:
        if not self.id or any(character.isspace() for character in self.id):
            raise ValueError("a passage's id is empty or holds a blank")
        if not self.text.strip():
            raise ValueError(f"passage {self.id!r} is empty")
        if self.score is not None and not math.isfinite(self.score):
            raise ValueError(f"passage {self.id!r} has a score that is not finite")


@dataclass(frozen=True)
class RankingQuery:
    """A query and its candidates, each passage once.

    Attributes:
        text: What was asked.
        candidates: In the order of the file; a passage occurs once.
        missed: Grades of judged passages that are not among the candidates, because the first stage
            did not find them; they count in evaluation.
    """

    text: str
    candidates: tuple[Candidate, ...]
    missed: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ValueError("the query is empty")
        if not self.candidates:
            raise ValueError("the query has no candidates")
        ids = {candidate.id for candidate in self.candidates}
        if len(ids) != len(self.candidates):
            raise ValueError("a passage occurs twice in the query's list")
        if ids & self.missed.keys():
            raise ValueError("a passage is both a candidate and missed")

    @property
    def grades(self) -> dict[str, int]:
        """Every judged passage's grade, candidate or not."""
        judged = {c.id: c.grade for c in self.candidates if c.grade is not None}
        return {**judged, **self.missed}

    def training_list(self, group: int) -> tuple[Candidate, ...]:
        """The passages one training step looks at, the positive first.

        The positive is the first of the highest grade; after it come the first ``group - 1``
        passages of a lower grade or of none. Fewer where the list has fewer; empty where it has no
        positive or nothing below it: such a list teaches nothing, and its loss is 0.
        """
        grades = [candidate.grade or 0 for candidate in self.candidates]
        best = max(grades)
        below = [
            candidate
            for candidate, grade in zip(self.candidates, grades, strict=True)
            if grade < best
        ]
        if best <= 0 or not below:
            return ()
        return (self.candidates[grades.index(best)], *below[: group - 1])


def ranking_record(name: str, query: RankingQuery, patient: str = "") -> Record:
    """A record that belongs to itself and, where its whole list is of one chart, to that patient.

    Privacy: a note of another patient in the list would let one patient's records move two units.
    Such a record gets no patient, and a study that protects patients then refuses it.
    """
    owners = {Unit.RECORD: name}
    if patient and all(candidate.patient == patient for candidate in query.candidates):
        owners[Unit.PATIENT] = patient
    return Record(id=name, owners=owners, content=query)
