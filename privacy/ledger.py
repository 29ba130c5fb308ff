"""The ledger: what one hospital's data has cost so far, on disk before anything is drawn.

Law 2, charge first: ``reserve`` writes and fsyncs the charge and only then hands out the
``Reservation`` that noise needs. ``commit`` stores the reply and fsyncs it before anybody sees it;
a repeated request gets the same bytes and charges nothing. The file is append-only JSON lines, each
hash-chained to the one before and signed, so that people can read it and machines can check it.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wardround.privacy._seal import SEAL
from wardround.privacy.errors import LedgerError
from wardround.privacy.events import Event, compose, from_json, to_json
from wardround.privacy.reservation import Reservation
from wardround.privacy.signing import SigningKey, canonical, sha256, verify
from wardround.privacy.units import Unit

_GENESIS = "0" * 64


@dataclass(frozen=True)
class Charge:
    """What a round will cost which data set.

    Attributes:
        study: Name of the study.
        run: Identifier of the run.
        round: Round number inside the run.
        plan_sha256: Hash of the plan that asked for it.
        dataset: Data set that pays.
        unit: Who is protected.
        event: What will be done to the data.
    """

    study: str
    run: str
    round: int
    plan_sha256: str
    dataset: str
    unit: Unit
    event: Event


class Ledger:
    """One hospital's ledger, held open by one process at a time."""

    def __init__(self, folder: Path, key: SigningKey, now: Callable[[], datetime] | None = None):
        """Open and check the ledger in ``folder``; made when absent.

        Raises:
            LedgerError: Another process holds it, or an entry is damaged, missing or forged.
        """
        self.folder = folder
        self._key = key
        self._now = now or (lambda: datetime.now(UTC))
        (folder / "replies").mkdir(parents=True, exist_ok=True)
        self._path = folder / "ledger.jsonl"
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise LedgerError(f"{self._path}: another process holds this ledger") from error
        self.entries: list[dict[str, Any]] = []
        self._head = _GENESIS
        self._charges: dict[tuple[str, int], dict[str, Any]] = {}
        self._commits: dict[tuple[str, int], dict[str, Any]] = {}
        for entry, digest in read_entries(self._path, key.public):
            self._index(entry, digest)

    def close(self) -> None:
        """Give the ledger up to the next process."""
        os.close(self._file)

    def spent(self, dataset: str, unit: Unit, run: str | None = None) -> Event:
        """Everything charged to a data set for one unit, over all studies or for one run."""
        return compose(
            *(
                from_json(entry["event"])
                for entry in self._charges.values()
                if entry["dataset"] == dataset
                and entry["unit"] == unit
                and (run is None or entry["run"] == run)
            )
        )

    def stored_reply(self, run: str, round_number: int, plan_sha256: str) -> bytes | None:
        """The reply already made for this request, or None.

        Raises:
            LedgerError: The round was charged under another plan, or the stored bytes changed.
        """
        key = (run, round_number)
        self._require_same_plan(key, plan_sha256)
        commit = self._commits.get(key)
        if commit is None:
            return None
        reply = self._reply_path(key).read_bytes()
        if sha256(reply) != commit["reply_sha256"]:
            raise LedgerError(f"{self._reply_path(key)}: the stored reply was changed")
        return reply

    def reserve(self, charge: Charge) -> Reservation:
        """Charge on disk, then hand out what noise needs; a charge once made is not made again."""
        key = (charge.run, charge.round)
        self._require_same_plan(key, charge.plan_sha256)
        if key not in self._charges:
            entry = asdict(charge) | {"kind": "reserve", "event": to_json(charge.event)}
            self._append(entry)
        return Reservation(charge.run, charge.round, charge.plan_sha256, charge.event, seal=SEAL)

    def commit(self, reservation: Reservation, reply: bytes) -> bytes:
        """Store the reply durably, then return it: only now may it be sent."""
        key = (reservation.run, reservation.round)
        path = self._reply_path(key)
        with path.open("wb") as file:
            file.write(reply)
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(path.parent)
        self._append(
            {
                "kind": "commit",
                "run": reservation.run,
                "round": reservation.round,
                "plan_sha256": reservation.plan_sha256,
                "reply_sha256": sha256(reply),
            }
        )
        return reply

    def _require_same_plan(self, key: tuple[str, int], plan_sha256: str) -> None:
        """Refuse another plan for a round that was charged already."""
        charged = self._charges.get(key)
        if charged is not None and charged["plan_sha256"] != plan_sha256:
            raise LedgerError(
                f"round {key[1]} of run {key[0]} was charged under another plan; refused"
            )

    def _reply_path(self, key: tuple[str, int]) -> Path:
        return self.folder / "replies" / f"{sha256(canonical({'k': list(key)}))[:32]}.bin"

    def _append(self, entry: dict[str, Any]) -> None:
        """Sign, write and fsync one entry, then count it."""
        entry |= {
            "seq": len(self.entries) + 1,
            "time": self._now().isoformat(timespec="milliseconds"),
            "previous": self._head,
        }
        digest = sha256(canonical(entry))
        line = canonical(
            {"entry": entry, "hash": digest, "signature": self._key.sign(digest.encode())}
        )
        os.write(self._file, line + b"\n")
        os.fsync(self._file)
        self._index(entry, digest)

    def _index(self, entry: dict[str, Any], digest: str) -> None:
        self.entries.append(entry)
        self._head = digest
        book = {"reserve": self._charges, "commit": self._commits}[entry["kind"]]
        book[(entry["run"], entry["round"])] = entry


def read_entries(path: Path, public: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Check and yield the entries of a ledger file with their hashes.

    Raises:
        LedgerError: The first entry that is damaged, out of order or not signed with ``public``.
    """
    head = _GENESIS
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        where = f"{path}:{number}"
        try:
            record = json.loads(line)
            entry, digest, signature = record["entry"], record["hash"], record["signature"]
        except (ValueError, KeyError, TypeError) as error:
            raise LedgerError(f"{where}: the entry is damaged") from error
        if sha256(canonical(entry)) != digest:
            raise LedgerError(f"{where}: the entry does not match its hash")
        if entry["previous"] != head or entry["seq"] != number:
            raise LedgerError(f"{where}: the entry does not follow the one before it")
        verify(public, digest.encode(), signature, where)
        head = digest
        yield entry, digest


def _sync_folder(folder: Path) -> None:
    """Make a new file's name durable, not only its contents."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
