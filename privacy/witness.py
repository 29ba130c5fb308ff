"""The witness: a small file beside the ledger that says how long the ledger was when it last spoke.

A hash chain shows that nothing inside it was changed, not that its end is still there. The witness
closes that gap: two slots written in turn, each with its own checksum, each durable before the
entry it speaks of is acknowledged. A ledger shorter than its witness was cut or replaced by an old
copy. A whole folder restored from a backup takes its witness along; against that the coordinator
echoes the head it last saw (``RoundPlan.ledger_head``).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from wardround.privacy.chain import Chain, LedgerHead, find
from wardround.privacy.disk import Disk
from wardround.privacy.errors import LedgerError
from wardround.privacy.signing import sha256

_SLOT_BYTES = 128
_SLOTS = 2


@dataclass(frozen=True)
class Testimony:
    """What the witness file says.

    Attributes:
        head: The newest head that a sound slot holds, or None.
        damaged: How many slots do not match their checksum.
    """

    head: LedgerHead | None
    damaged: int


class Witness:
    """The witness file of one ledger, open for writing."""

    def __init__(self, path: Path, head: LedgerHead, disk: Disk) -> None:
        """Start afresh with every slot at ``head``; the file appears complete or not at all."""
        self._disk = disk
        disk.write_file(path, _slot(head) * _SLOTS)
        self._handle = os.open(path, os.O_RDWR)

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)

    def record(self, head: LedgerHead) -> None:
        """Write ``head`` into the slot of its turn; durable on return."""
        self._disk.write(self._handle, _slot(head), head.seq % _SLOTS * _SLOT_BYTES)
        self._disk.sync(self._handle)


def read_witness(path: Path) -> Testimony:
    """What the witness file at ``path`` says; nothing when there is none."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Testimony(None, 0)
    parts = [data[i * _SLOT_BYTES : (i + 1) * _SLOT_BYTES] for i in range(_SLOTS)]
    heads = [_parse(part) for part in parts]
    sound = [head for head in heads if head is not None]
    extra = len(data) > _SLOTS * _SLOT_BYTES
    newest = max(sound, key=lambda head: head.seq, default=None)
    return Testimony(newest, len(parts) - len(sound) + extra if data else 0)


def judge(testimony: Testimony, chain: Chain, where: Path) -> None:
    """Refuse a ledger that is shorter than, or another than, what its witness saw.

    Raises:
        LedgerError: Something acknowledged is missing from the file ``where``, or might be.
    """
    head, entries = testimony.head, len(chain.entries)
    if head is None:
        # Up to its opening entry a ledger has promised nothing; a crash may leave it so.
        if entries > 1 or testimony.damaged:
            raise LedgerError(
                f"{where}: its witness file is missing or damaged, so nobody can say whether the "
                "last entries are still there; confirm the head with the coordinator and rebuild it"
            )
        return
    if entries < head.seq:
        raise LedgerError(
            f"{where}: ends after entry {entries}, but its witness saw entry {head.seq}: "
            "it was cut or replaced by an older copy"
        )
    if not find(chain.entries, head):
        raise LedgerError(f"{where}: entry {head.seq} is not the one its witness saw: rewritten")
    if testimony.damaged and (chain.tail or entries == head.seq):
        # A crash while a slot was written leaves its entry complete in the ledger. This is not it.
        raise LedgerError(
            f"{where}: a slot of its witness is damaged, so the ledger's end cannot be confirmed"
        )


def _slot(head: LedgerHead) -> bytes:
    """One slot's bytes: number, hash, checksum, padded with spaces."""
    text = f"{head.seq:012d} {head.sha256}"
    return f"{text} {sha256(text.encode())[:16]}".ljust(_SLOT_BYTES - 1).encode() + b"\n"


def _parse(data: bytes) -> LedgerHead | None:
    """The head in one slot, or None where a byte of it is wrong."""
    try:
        number, digest, _ = data.decode("ascii").split()
        head = LedgerHead(int(number), digest)
    except ValueError:
        return None
    return head if _slot(head) == data else None
