"""The report book: one signed JSON file a round, with what every hospital reported about itself.

The coordinator merges and signs; it computes no epsilon of its own. Files appear whole or not at
all, so the book can be read while the study runs. A round that failed is signed too, under another
name: it counts for nothing, is tried again when the run goes on, and says who gave which reason.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wardround.privacy.errors import BadInput, BadMessage, UntrustedPeer
from wardround.privacy.signing import SigningKey, canonical, verify
from wardround.privacy.tables import as_table, from_table
from wardround.strategies.checkpoint import write_atomically

log = logging.getLogger("wardround.coordinator")
_ENDED = "[0-9]*.json"
_FAILED = "failed-[0-9]*.json"


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
        failed: Why the round left the model as it was; empty for a round that has ended well.
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
    failed: str = ""

    @property
    def file_name(self) -> str:
        """What its file is called; that of a failed round is counted, see ``ReportBook``."""
        return f"{self.round:04d}.json"

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
        """Sign and keep one round; each failed try at a round has a file of its own."""
        name = record.file_name
        if record.failed:
            tries = len(list(self._folder.glob(f"failed-{record.round:04d}-*.json")))
            name = f"failed-{record.round:04d}-{tries + 1:04d}.json"
        document = {**as_table(record), "answers": [as_table(one) for one in record.answers]}
        signed = {
            "record": document,
            "key": self._key.public,
            "signature": self._key.sign(canonical(document)),
        }
        content = canonical(signed)
        write_atomically(self._folder / name, content + b"\n")


def read_book(folder: Path) -> list[RoundRecord]:
    """All rounds in ``folder`` that have ended well, in order, their signatures checked.

    Raises:
        BadMessage: A file is not a signed round record.
        UntrustedPeer: A signature does not verify.
    """
    return [_read(path, failed=False) for path in record_files(folder)]


def read_failures(folder: Path) -> list[RoundRecord]:
    """All failed tries at rounds in ``folder``, in order, their signatures checked.

    Raises:
        BadMessage: A file is not a signed round record.
        UntrustedPeer: A signature does not verify.
    """
    return [_read(path, failed=True) for path in failure_files(folder)]


def _read(path: Path, failed: bool) -> RoundRecord:
    """The record in a file, which must be of the kind that its name says."""
    record = parse_record(path.read_bytes(), str(path))
    if bool(record.failed) != failed:
        raise BadMessage(f"{path}: a failed try and a round that ended well were exchanged")
    return record


def record_files(folder: Path) -> list[Path]:
    """The files of the rounds that have ended well, in order."""
    return sorted(folder.glob(_ENDED))


def failure_files(folder: Path) -> list[Path]:
    """The files of failed tries at rounds, in order."""
    return sorted(folder.glob(_FAILED))


def parse_record(data: bytes, name: str, public: str | None = None) -> RoundRecord:
    """One round from its file's bytes, its signature checked.

    Args:
        data: What the file holds.
        name: What messages call it.
        public: Whose signature to expect; by default the key the file names.

    Raises:
        BadMessage: Not a signed round record.
        UntrustedPeer: Not signed by that key.
    """
    try:
        signed = json.loads(data)
        key, record = signed["key"], signed["record"]
        if public is not None and key != public:
            raise UntrustedPeer(f"{name}: signed with another key than this run's")
        verify(key, canonical(record), signed["signature"], name)
        found = from_table(RoundRecord, record, name)
        if not all(isinstance(value, int | float) for value in found.metrics.values()):
            raise BadMessage(f"{name}: a score is no number")
        return found
    except (BadInput, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadMessage(f"{name}: not a signed round record") from error


def read_history(path: Path) -> dict[int, Mapping[str, float]]:
    """Scores by round, from ``metrics.jsonl``; empty when nothing was scored yet.

    Raises:
        BadMessage: A line is not one round's scores.
    """
    if not path.exists():
        return {}
    history = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            row = json.loads(line)
            at = row.pop("round")
            if not isinstance(at, int) or not all(isinstance(v, int | float) for v in row.values()):
                raise TypeError("a score is no number")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise BadMessage(f"{path}:{number}: not one round's scores") from error
        history[at] = row
    return history


def last_reports(records: Iterable[RoundRecord]) -> dict[str, Mapping[str, Any]]:
    """Each hospital's newest privacy report, by name of the hospital."""
    return {
        answer.hospital: answer.report
        for record in records
        for answer in record.answers
        if answer.report is not None
    }
