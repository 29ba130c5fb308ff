"""The ledger: what one hospital's data has cost so far, on disk before anything is drawn.

Law 2, charge first: ``reserve`` writes and fsyncs the charge and only then hands out the
``Reservation`` that noise needs. ``commit`` stores the reply and fsyncs it before anybody sees it;
a repeated request gets the same bytes and charges nothing. What the disk does to the file is
``privacy.journal``'s business. Knows nothing of budgets, models or what a reply means.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wardround.privacy._seal import SEAL
from wardround.privacy.chain import Entry, LedgerHead, find, read_chain
from wardround.privacy.disk import Disk
from wardround.privacy.errors import LedgerError
from wardround.privacy.events import Event, Primitive, from_counts, primitive_counts, to_json
from wardround.privacy.journal import LEDGER_FILE, WITNESS_FILE, Clock, Journal, utc_now
from wardround.privacy.replies import Replies
from wardround.privacy.reservation import Reservation
from wardround.privacy.signing import SigningKey, sha256
from wardround.privacy.units import Unit
from wardround.privacy.witness import Witness

REPLIES_FOLDER = "replies"


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

    def fields(self) -> dict[str, Any]:
        """What of it is written into a reserve entry."""
        return asdict(self) | {"kind": "reserve", "event": to_json(self.event)}


class Ledger:
    """One hospital's ledger: one process holds it, any of its threads may call it."""

    def __init__(
        self, folder: Path, key: SigningKey, now: Clock = utc_now, disk: Disk | None = None
    ) -> None:
        """Open and check the ledger in ``folder``; made when absent.

        Raises:
            LedgerError: Another process holds it, or an entry is damaged, missing or forged.
        """
        self.folder = folder
        disk = disk or Disk()
        self._lock = threading.RLock()
        self._charges: dict[tuple[str, int], Entry] = {}
        self._commits: dict[tuple[str, int], Entry] = {}
        self._spent: dict[tuple[str, ...], dict[Primitive, int]] = {}
        self._live: dict[tuple[str, int], Reservation] = {}
        (folder / REPLIES_FOLDER).mkdir(parents=True, exist_ok=True)
        self._replies = Replies(folder / REPLIES_FOLDER, disk)
        self._journal = Journal(folder, key, now, disk)
        try:
            self._replies.sweep()
            for entry in self._journal.entries:
                self._index(entry)
            self._replies.refuse_unknown(self._charges)
        except LedgerError:
            self._journal.close()
            raise

    def close(self) -> None:
        """Give the ledger up to the next process."""
        with self._lock:
            self._journal.close()

    @property
    def entries(self) -> Sequence[Mapping[str, Any]]:
        """Every entry's fields, in order."""
        return [entry.fields for entry in self._journal.entries]

    @property
    def notes(self) -> Sequence[str]:
        """What was mended or noticed while opening; none of it lets anything count for less."""
        return self._journal.notes

    @property
    def head(self) -> LedgerHead:
        """Where the chain stands; the coordinator echoes it so that a rollback is noticed."""
        return self._journal.head

    def require_contains(self, head: LedgerHead | None) -> None:
        """Refuse to go on when somebody saw an entry that this ledger does not hold.

        Args:
            head: What the coordinator last saw; None when it never saw any.

        Raises:
            LedgerError: The ledger was rolled back, or restored from an old copy.
        """
        if head is not None and not find(self._journal.entries, head):
            raise LedgerError(
                f"{self._journal.path}: the coordinator saw entry {head.seq} "
                f"({head.sha256[:12]}…), which this ledger of {len(self._journal.entries)} entries "
                "does not hold: it was rolled back or restored from an old copy; nothing may be "
                "drawn until the missing entries are back"
            )

    def spent(self, dataset: str, unit: Unit, run: str | None = None) -> Event:
        """Everything charged to a data set for one unit, over all studies or for one run."""
        account = (dataset, unit) if run is None else (dataset, unit, run)
        with self._lock:
            self._journal.require_usable()
            return from_counts(self._spent.get(account, {}))

    def charged(self, run: str, round_number: int) -> bool:
        """Whether this round was charged, answered or not."""
        with self._lock:
            self._journal.require_usable()
            return (run, round_number) in self._charges

    def stored_reply(self, run: str, round_number: int, plan_sha256: str) -> bytes | None:
        """The reply already made for this request, or None.

        Raises:
            LedgerError: The round was charged under another plan, or the stored bytes are lost or
                changed: a second answer is never made up.
        """
        key = (run, round_number)
        with self._lock:
            self._journal.require_usable()
            self._require_same_plan(key, plan_sha256)
            commit = self._commits.get(key)
            if commit is not None:
                return self._replies.read(key, commit.fields["reply_sha256"])
            reply = self._replies.find(key)
            if reply is not None:
                # Stored just before a crash; an old copy of the ledger would look the same, so the
                # bytes may have been seen and stand.
                self._record_commit(key, reply)
            return reply

    def reserve(self, charge: Charge) -> Reservation:
        """Charge on disk, then hand out what noise needs; a charge once made is not made again.

        Asked again for work that released nothing, it hands out a fresh reservation under the old
        charge and revokes the one before.

        Raises:
            LedgerError: The round was answered already, was charged differently, or the disk
                refused; nothing was drawn.
        """
        key = (charge.run, charge.round)
        with self._lock:
            self._journal.require_usable()
            self._require_same_plan(key, charge.plan_sha256)
            if key in self._commits or self._replies.find(key) is not None:
                raise LedgerError(
                    f"round {charge.round} of run {charge.run} was answered already; "
                    "its stored reply is the only answer"
                )
            known = self._charges.get(key)
            if known is None:
                self._index(self._journal.append(charge.fields()))
            elif not charge.fields().items() <= known.fields.items():
                raise LedgerError(
                    f"round {charge.round} of run {charge.run} was charged differently; refused"
                )
            if key in self._live:
                self._live[key].revoke()
            self._live[key] = Reservation(
                charge.run, charge.round, charge.plan_sha256, charge.event, seal=SEAL
            )
            return self._live[key]

    def commit(self, reservation: Reservation, reply: bytes) -> bytes:
        """Store the reply durably, then return what may be sent: always these bytes and no others.

        Raises:
            LedgerError: The reservation is not the current one, the round has another answer
                already, or the disk refused; nothing may be sent.
        """
        key = (reservation.run, reservation.round)
        with self._lock:
            self._journal.require_usable()
            if self._live.get(key) is not reservation:
                raise LedgerError(f"round {key[1]} of run {key[0]}: this reservation was replaced")
            known = self.stored_reply(*key, reservation.plan_sha256)
            if known is not None:
                if known != reply:
                    raise LedgerError(f"round {key[1]} of run {key[0]} has another answer already")
                return known
            try:
                self._replies.write(key, reply)
            except OSError as error:
                raise LedgerError(
                    f"{self.folder}: the reply cannot be stored ({error.strerror}); nothing leaves"
                ) from error
            self._record_commit(key, reply)
            return reply

    def _record_commit(self, key: tuple[str, int], reply: bytes) -> None:
        """Append the entry that makes a stored reply the round's answer."""
        entry = {
            "kind": "commit",
            "run": key[0],
            "round": key[1],
            "plan_sha256": self._charges[key].fields["plan_sha256"],
            "reply_sha256": sha256(reply),
        }
        self._index(self._journal.append(entry))

    def _require_same_plan(self, key: tuple[str, int], plan_sha256: str) -> None:
        """Refuse another plan for a round that was charged already."""
        charged = self._charges.get(key)
        if charged is not None and charged.fields["plan_sha256"] != plan_sha256:
            raise LedgerError(
                f"round {key[1]} of run {key[0]} was charged under another plan; refused"
            )

    def _index(self, entry: Entry) -> None:
        """Count one sound entry."""
        fields = entry.fields
        if fields["kind"] == "commit":
            self._commits[(fields["run"], fields["round"])] = entry
        if entry.event is None:
            return
        self._charges[(fields["run"], fields["round"])] = entry
        account = (fields["dataset"], fields["unit"])
        for name in (account, (*account, fields["run"])):
            counts = self._spent.setdefault(name, {})
            for part, count in primitive_counts(entry.event).items():
                counts[part] = counts.get(part, 0) + count


def rebuild_witness(folder: Path, key: SigningKey, seen: LedgerHead) -> None:
    """Replace a lost witness file, once somebody outside confirms how far the ledger had come.

    Args:
        folder: The ledger's folder.
        key: The hospital's signing key.
        seen: The newest head that the coordinator or a signed report holds.

    Raises:
        LedgerError: The ledger does not hold ``seen``, or is itself damaged.
    """
    chain = read_chain(folder / LEDGER_FILE, key.public)
    if not find(chain.entries, seen):
        raise LedgerError(f"{folder / LEDGER_FILE}: does not hold entry {seen.seq}: it was cut")
    Witness(folder / WITNESS_FILE, chain.entries[-1].head, Disk()).close()
