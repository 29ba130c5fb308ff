"""The journal: one append-only, signed and witnessed file, which survives whatever a machine does.

An entry counts once it and its witness are on disk, and only then does ``append`` return. A fault
leaves the file as it was, or the journal refuses to go on until it is opened again; opening mends
what a crash may leave and refuses everything else. Format and reasons: ``docs/ledger.md``.
Knows nothing of charges or replies.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wardround.privacy.chain import (
    GENESIS,
    SCHEMA_VERSION,
    Chain,
    Entry,
    LedgerHead,
    entry_event,
    read_chain,
    seal_entry,
)
from wardround.privacy.disk import Disk
from wardround.privacy.errors import LedgerError
from wardround.privacy.signing import SigningKey, sha256
from wardround.privacy.witness import Witness, judge, read_witness

LEDGER_FILE = "ledger.jsonl"
WITNESS_FILE = "head"

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The system's clock."""
    return datetime.now(UTC)


class Journal:
    """An open journal; one process holds it at a time.

    Attributes:
        path: The file.
        entries: Its entries, in order.
        notes: What was mended or noticed; none of it lets anything count for less.
    """

    def __init__(self, folder: Path, key: SigningKey, now: Clock, disk: Disk) -> None:
        """Open and check the journal in ``folder``; made when absent.

        Raises:
            LedgerError: Another process holds it, or an entry is damaged, missing or forged.
        """
        self.path = folder / LEDGER_FILE
        self.entries: list[Entry] = []
        self.notes: list[str] = []
        self._key = key
        self._now = now
        self._disk = disk
        self._fault = ""
        self._size_bytes = 0
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._witness = self._open(folder)
        except OSError as error:
            os.close(self._file)
            raise LedgerError(f"{self.path}: cannot be opened ({error.strerror})") from error
        except BaseException:
            os.close(self._file)
            raise

    @property
    def head(self) -> LedgerHead:
        """Where the chain stands."""
        return self.entries[-1].head

    def close(self) -> None:
        """Give the file up to the next process."""
        if self._fault != "closed":
            self._fault = "closed"
            self._witness.close()
            os.close(self._file)

    def require_usable(self) -> None:
        """Raise ``LedgerError`` after a fault that only opening again can settle."""
        if self._fault:
            raise LedgerError(f"{self.path}: {self._fault}; open the ledger again")

    def append(self, fields: Mapping[str, Any]) -> Entry:
        """Write one entry and have it witnessed; it counts from here on.

        Raises:
            LedgerError: The disk refused, or somebody else touched the file.
        """
        self._require_untouched()
        entry = self._write(dict(fields))
        try:
            self._witness.record(self.head)
        except OSError as error:
            self._fault = f"the witness cannot be written ({error.strerror})"
            raise LedgerError(f"{self.path}: {self._fault}; nothing was drawn or sent") from error
        return entry

    def _open(self, folder: Path) -> Witness:
        """Lock the file, check it against its witness, mend what a crash may leave."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise LedgerError(f"{self.path}: another process holds this ledger") from error
        chain = read_chain(self.path, self._key.public)
        testimony = read_witness(folder / WITNESS_FILE)
        judge(testimony, chain, self.path)
        if testimony.damaged:
            self.notes.append("a slot of the witness was damaged and has been written again")
        for entry in chain.entries:
            self._count(entry)
        self._size_bytes = chain.size_bytes
        return self._mend(folder, chain)

    def _mend(self, folder: Path, chain: Chain) -> Witness:
        """Cut an unfinished line off; write the opening entry if there is none."""
        if chain.tail:
            self._disk.truncate(self._file, self._size_bytes)
            self._disk.sync(self._file)
        if not chain.entries:
            self._write({"kind": "open", "schema": SCHEMA_VERSION, "public_key": self._key.public})
            self._disk.sync_folder(folder)
            self._disk.sync_folder(folder.parent)
        elif chain.tail:
            self.notes.append(f"cut off {len(chain.tail)} bytes of an unfinished entry")
            repair = {"kind": "repair", "cut_bytes": len(chain.tail)}
            self._write(repair | {"cut_sha256": sha256(chain.tail)})
        return Witness(folder / WITNESS_FILE, self.head, self._disk)

    def _write(self, fields: dict[str, Any]) -> Entry:
        """Sign, write and fsync one entry, then count it; after an error the file is as before."""
        now = self._now()
        fields["seq"] = len(self.entries) + 1
        fields["time"] = now.isoformat(timespec="milliseconds")
        fields["previous"] = self.entries[-1].sha256 if self.entries else GENESIS
        if self.entries and now < datetime.fromisoformat(self.entries[-1].fields["time"]):
            fields["clock"] = "behind the entry before"
        line, digest = seal_entry(fields, self._key)
        try:
            self._disk.write(self._file, line, self._size_bytes)
            self._disk.sync(self._file)
        except OSError as error:
            self._undo(error)
            raise LedgerError(
                f"{self.path}: the entry cannot be written ({error.strerror}); "
                "nothing was charged, drawn or sent"
            ) from error
        self._size_bytes += len(line)
        return self._count(Entry(fields, digest, entry_event(fields, str(self.path))))

    def _undo(self, error: OSError) -> None:
        """Cut a half-written entry off again; where that fails too, nothing more is written."""
        try:
            self._disk.truncate(self._file, self._size_bytes)
            self._disk.sync(self._file)
        except OSError:
            self._fault = f"a write failed half-way ({error.strerror})"

    def _count(self, entry: Entry) -> Entry:
        """Take one sound entry in."""
        self.entries.append(entry)
        if "clock" in entry.fields:
            self.notes.append(f"entry {entry.fields['seq']}: the clock was {entry.fields['clock']}")
        return entry

    def _require_untouched(self) -> None:
        """Refuse to write into a file that somebody replaced, cut or extended meanwhile."""
        self.require_usable()
        ours = os.fstat(self._file)
        try:
            named = self.path.stat()
        except FileNotFoundError:
            self._fault = "the file was removed under the running process"
        else:
            if (ours.st_dev, ours.st_ino) != (named.st_dev, named.st_ino):
                self._fault = "the file was replaced under the running process"
            elif ours.st_size != self._size_bytes:
                self._fault = "the file was changed under the running process"
        self.require_usable()
