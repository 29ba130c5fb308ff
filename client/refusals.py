"""What a hospital refused, for its own people: a bounded file beside the ledger, newest last.

A convenience, not a proof: the ledger alone says what was charged. Reasons depend on public things
only (law 6), so nothing in the file tells about a record. Whoever asks a thousand times makes the
file no longer than the last ``MOST``.
"""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from wardround.privacy.errors import BadInput
from wardround.privacy.journal import utc_now
from wardround.privacy.tables import as_table, from_table

log = logging.getLogger("wardround.custodian")
REFUSALS_FILE = "refusals.jsonl"
MOST = 1000
_MOST_CHARACTERS = 600  # of a reason, which may repeat what a stranger sent


@dataclass(frozen=True)
class Refusal:
    """One refusal.

    Attributes:
        time: When, ISO 8601 in UTC.
        round: Which round was asked for; 0 when the plan could not be opened.
        error: Kind of error.
        reason: As it was told to the outside.
    """

    time: str
    round: int
    error: str
    reason: str


class RefusalBook:
    """Appends to the file; one process writes it."""

    def __init__(self, folder: Path, now: Callable[[], datetime] = utc_now) -> None:
        """Use ``folder``, which must exist."""
        self._path = folder / REFUSALS_FILE
        self._now = now
        self._count = len(read_refusals(folder))

    def note(self, round_number: int, error: str, reason: str) -> None:
        """Keep one refusal; drops the older half when there are too many.

        Raises:
            OSError: The disk refused.
        """
        found = Refusal(
            time=self._now().isoformat(timespec="seconds"),
            round=round_number,
            error=error,
            reason=reason[:_MOST_CHARACTERS],
        )
        line = json.dumps(as_table(found))
        _write(self._path, line + "\n", os.O_APPEND)
        self._count += 1
        if self._count > MOST:
            kept = self._path.read_text(encoding="utf-8").splitlines()[-MOST // 2 :]
            part = self._path.with_suffix(".part")
            _write(part, "".join(each + "\n" for each in kept), os.O_TRUNC)
            part.replace(self._path)
            self._count = len(kept)


def read_refusals(folder: Path) -> list[Refusal]:
    """What the file holds, oldest first; a line that a crash or a hand damaged is left out."""
    path = folder / REFUSALS_FILE
    if not path.exists():
        return []
    found: deque[Refusal] = deque(maxlen=2 * MOST)
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            found.append(from_table(Refusal, json.loads(line), REFUSALS_FILE))
        except (ValueError, BadInput, RecursionError):
            log.warning("left out a damaged line of refusals number=%d", number)
    return list(found)


def _write(path: Path, text: str, how: int) -> None:
    """Write into a file that its owner alone may read."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | how, 0o600), "w") as file:
        file.write(text)
