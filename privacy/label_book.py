"""The label book: labels that went through randomised response, drawn once a run and then reused.

Every round that draws again would be charged again, and averaging the draws would undo them. So a
hospital writes down what the coins said, durably and before anything is computed from it, and later
rounds read it: post-processing of what was charged. Source: Erlingsson, Pihur and Korolova (2014),
"RAPPOR", section 2: the permanent response.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wardround.privacy._seal import SEAL
from wardround.privacy.disk import Disk
from wardround.privacy.errors import LedgerError
from wardround.privacy.events import NOTHING, RandomisedResponse
from wardround.privacy.labels import randomise_labels
from wardround.privacy.noise import Noised
from wardround.privacy.reservation import Reservation
from wardround.privacy.signing import canonical, sha256
from wardround.privacy.stream import SecureStream

LABELS = "labels"


class LabelBook:
    """One hospital's noised labels, a file a run."""

    def __init__(self, folder: Path, disk: Disk | None = None) -> None:
        """``folder`` is made when labels are first drawn."""
        self._folder = folder
        self._disk = disk or Disk()

    def drawn_in(self, run: str) -> int | None:
        """The round in which this run's labels were drawn, or None before that."""
        kept = self._read(run)
        return None if kept is None else int(kept["round"])

    def draw(
        self,
        records: Sequence[str],
        labels: Tensor,
        event: RandomisedResponse,
        reservation: Reservation,
        stream: SecureStream,
    ) -> Noised:
        """The run's noised labels, under the name ``labels``; drawn now if they never were.

        Args:
            records: Identifiers of the labelled records, in the order of the labels.
            labels: As they are.
            event: With what probability each is kept.
            reservation: The ledger's proof of charge; names run and round. Not used up where the
                labels were drawn before.
            stream: Where the coins come from.

        Raises:
            LedgerError: The event was not charged; the book is damaged, or speaks of other records.

        Privacy: satisfies ``event`` for each record's label, over all rounds of the run together.
        """
        run, known = reservation.run, sha256(canonical({"records": list(records)}))
        kept = self._read(run)
        if kept is None:
            noised = randomise_labels(labels, event, reservation, stream)
            page = {
                "run": run,
                "round": reservation.round,
                "records": known,
                "labels": noised.value[LABELS].tolist(),
            }
            self._folder.mkdir(parents=True, exist_ok=True)
            self._disk.write_file(self._path(run), canonical(page))
            return noised
        if kept["records"] != known:
            raise LedgerError(
                f"{self._path(run)}: the records are not those whose labels were drawn for this "
                "run; labels drawn anew would be charged anew, in a new run"
            )
        return Noised({LABELS: torch.tensor(kept[LABELS]).long()}, NOTHING, seal=SEAL)

    def _read(self, run: str) -> dict[str, Any] | None:
        """What was written down for this run."""
        path = self._path(run)
        if not path.exists():
            return None
        try:
            page = json.loads(path.read_bytes())
            whole = page["run"] == run and int(page["round"]) >= 1 and set(page[LABELS]) <= {0, 1}
        except (KeyError, TypeError, ValueError) as error:
            raise LedgerError(f"{path}: the label book is damaged; nothing is drawn") from error
        if not whole:
            raise LedgerError(f"{path}: the label book is damaged; nothing is drawn")
        found: dict[str, Any] = page
        return found

    def _path(self, run: str) -> Path:
        """A run's name comes from outside and is hashed before it names a file."""
        return self._folder / f"{sha256(run.encode())[:32]}.json"
