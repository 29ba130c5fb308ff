"""The report book: one signed JSON file a round, with what every hospital reported about itself.

The coordinator merges and signs; it computes no epsilon of its own. Files appear whole or not at
all, so the book can be read while the study runs.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wardround.privacy.errors import BadMessage
from wardround.privacy.signing import SigningKey, canonical, verify
from wardround.privacy.tables import as_table
from wardround.strategies.checkpoint import write_atomically

log = logging.getLogger("wardround.coordinator")


@dataclass(frozen=True)
class HospitalAnswer:
    """How one hospital answered in one round.

    Attributes:
        hospital: Its name.
        report: Its own privacy report, or None when it sent no update.
        reason: Why it sent none.
        bytes_up: Size of its answer.
    """

    hospital: str
    report: Mapping[str, Any] | None = None
    reason: str = ""
    bytes_up: int = 0


@dataclass(frozen=True)
class RoundRecord:
    """One round as the coordinator saw it.

    Attributes:
        study: Name of the study.
        run: Identifier of the run.
        round: Which round, from 1.
        rounds: Rounds the study takes.
        answers: One a hospital.
        metrics: Scores of the new model on public probes.
        bytes_down: What was sent to all hospitals together.
        seconds: Wall time of the round.
        stopped: Why the study ended with this round before its last; empty otherwise.
    """

    study: str
    run: str
    round: int
    rounds: int
    answers: tuple[HospitalAnswer, ...]
    metrics: Mapping[str, float] = field(default_factory=dict)
    bytes_down: int = 0
    seconds: float = 0.0
    stopped: str = ""

    @property
    def bytes_up(self) -> int:
        """What all hospitals together sent."""
        return sum(answer.bytes_up for answer in self.answers)


class ReportBook:
    """Writes the rounds of one run into a folder."""

    def __init__(self, folder: Path, key: SigningKey) -> None:
        self._folder = folder
        self._key = key
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, record: RoundRecord) -> None:
        """Sign and keep one round."""
        document = {**as_table(record), "answers": [as_table(one) for one in record.answers]}
        signed = {
            "record": document,
            "key": self._key.public,
            "signature": self._key.sign(canonical(document)),
        }
        content = canonical(signed)
        write_atomically(self._folder / f"{record.round:04d}.json", content + b"\n")


def read_book(folder: Path) -> list[RoundRecord]:
    """All rounds in ``folder``, in order, their signatures checked.

    Raises:
        BadMessage: A file is not a signed round record.
        UntrustedPeer: A signature does not verify.
    """
    records = []
    for path in sorted(folder.glob("[0-9]*.json")):
        try:
            signed = json.loads(path.read_text(encoding="utf-8"))
            verify(signed["key"], canonical(signed["record"]), signed["signature"], str(path))
            fields = dict(signed["record"])
            answers = tuple(HospitalAnswer(**answer) for answer in fields.pop("answers"))
            records.append(RoundRecord(**fields, answers=answers))
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise BadMessage(f"{path}: not a signed round record") from error
    return records


def last_reports(records: Iterable[RoundRecord]) -> dict[str, Mapping[str, Any]]:
    """Each hospital's newest privacy report, by name of the hospital."""
    return {
        answer.hospital: answer.report
        for record in records
        for answer in record.answers
        if answer.report is not None
    }
