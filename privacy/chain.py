"""The chain of ledger entries: how one is written, and what a sound file of them looks like.

One entry a line, canonical JSON: ``{"entry": …, "hash": …, "signature": …}``. Each entry names the
hash of the one before, the hash covers the entry, the signature (Ed25519) the hash. The first entry
carries the public key, so a file can be checked by anybody. Reads only; writes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wardround.privacy.errors import BadMessage, LedgerError, UntrustedPeer
from wardround.privacy.events import Event, from_json
from wardround.privacy.signing import SigningKey, canonical, sha256, verify

SCHEMA_VERSION = 1
GENESIS = "0" * 64
# What else than the time an entry of each kind says; a round is a number, the rest is text.
KINDS: Mapping[str, tuple[str, ...]] = {
    "open": ("public_key",),
    "reserve": ("study", "run", "round", "plan_sha256", "dataset", "unit"),
    "commit": ("run", "round", "plan_sha256", "reply_sha256"),
    "repair": (),
}


@dataclass(frozen=True)
class LedgerHead:
    """Where a ledger stood: its last entry's number and hash; whoever holds it can spot a rollback.

    Attributes:
        seq: Number of the last entry, from 1.
        sha256: Hash of the last entry, and through it of all before.
    """

    seq: int
    sha256: str

    def __post_init__(self) -> None:
        if self.seq < 1:
            raise ValueError(f"seq is {self.seq}; it must be 1 or more")
        if len(self.sha256) != len(GENESIS):
            raise ValueError(f"sha256 has {len(self.sha256)} characters; it must have 64")


@dataclass(frozen=True)
class Entry:
    """One checked entry.

    Attributes:
        fields: What was written, by name.
        sha256: Its hash.
        event: The charge's event, for a reserve entry.
    """

    fields: Mapping[str, Any]
    sha256: str
    event: Event | None

    @property
    def head(self) -> LedgerHead:
        """The chain as this entry left it."""
        return LedgerHead(self.fields["seq"], self.sha256)


@dataclass(frozen=True)
class Chain:
    """A ledger file, checked from its first byte.

    Attributes:
        entries: The sound entries, in order.
        size_bytes: How much of the file they fill.
        tail: Bytes after the last complete line: an append that never finished.
        public: The key that signed them; empty for an empty chain.
    """

    entries: tuple[Entry, ...]
    size_bytes: int
    tail: bytes
    public: str


def seal_entry(fields: Mapping[str, Any], key: SigningKey) -> tuple[bytes, str]:
    """The line for an entry, ending in a newline, and the entry's hash."""
    digest = sha256(canonical(fields))
    signature = key.sign(_signed(digest))
    line = canonical({"entry": fields, "hash": digest, "signature": signature})
    return line + b"\n", digest


def read_chain(path: Path, public: str | None = None) -> Chain:
    """The entries of a ledger file; an unfinished last line is handed back, not judged.

    Args:
        path: The ledger file.
        public: Whose signatures to expect; by default the key named in the first entry.

    Raises:
        LedgerError: The first entry that is damaged, out of order or not signed by that key.
    """
    return parse_chain(path.read_bytes(), str(path), public)


def parse_chain(data: bytes, name: str, public: str | None = None) -> Chain:
    """``read_chain`` for bytes at hand; ``name`` is what messages call them."""
    complete, newline, tail = data.rpartition(b"\n")
    entries: list[Entry] = []
    key = public or ""
    for number, line in enumerate(complete.split(b"\n") if newline else [], 1):
        where = f"{name}:{number}"
        record = _parse(line, where)
        fields = record["entry"]
        if number == 1:
            key = _opening_key(fields, public, where)
        previous = entries[-1].sha256 if entries else GENESIS
        if fields.get("previous") != previous or fields.get("seq") != number:
            raise LedgerError(f"{where}: the entry does not follow the one before it")
        try:
            verify(key, _signed(record["hash"]), record["signature"], where)
        except UntrustedPeer as error:
            raise LedgerError(str(error)) from error
        entries.append(Entry(fields, record["hash"], entry_event(fields, where)))
    return Chain(tuple(entries), len(complete) + len(newline), tail, key if entries else "")


def find(entries: Sequence[Entry], head: LedgerHead) -> bool:
    """Whether a chain that once stood at ``head`` is what ``entries`` continue."""
    return len(entries) >= head.seq and entries[head.seq - 1].sha256 == head.sha256


def _signed(digest: str) -> bytes:
    """What an entry's signature covers; the words keep it from passing for another document's."""
    return b"wardround ledger entry " + digest.encode()


def _parse(line: bytes, where: str) -> dict[str, Any]:
    """The record on one line, if every byte of it is as it was written."""
    try:
        record = json.loads(line)
        if set(record) != {"entry", "hash", "signature"} or canonical(record) != line:
            raise LedgerError(f"{where}: the entry is damaged")
        matches = sha256(canonical(record["entry"])) == record["hash"]
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise LedgerError(f"{where}: the entry is damaged") from error
    if not matches:
        raise LedgerError(f"{where}: the entry does not match its hash")
    signature = record["signature"]
    if not isinstance(signature, str) or signature != signature.lower():
        raise LedgerError(f"{where}: the signature is damaged")
    fields = record["entry"]
    if not isinstance(fields, dict) or fields.get("kind") not in list(KINDS):
        raise LedgerError(f"{where}: an entry of unknown kind")
    _check_fields(fields, where)
    return dict(record)


def _check_fields(fields: Mapping[str, Any], where: str) -> None:
    """Refuse an entry without what its kind says; its signer may have written anything."""
    for name in ("time", *KINDS[fields["kind"]]):
        if type(fields.get(name)) is not (int if name == "round" else str):
            raise LedgerError(f"{where}: {name} is missing or of another type")


def _opening_key(fields: Mapping[str, Any], public: str | None, where: str) -> str:
    """The public key of the first entry, if it is the expected one."""
    if fields["kind"] != "open" or fields.get("schema") != SCHEMA_VERSION:
        raise LedgerError(f"{where}: not the opening entry of a schema {SCHEMA_VERSION} ledger")
    named = str(fields.get("public_key"))
    if public is not None and named != public:
        raise LedgerError(
            f"{where}: this ledger is kept with key {named[:12]}…, not {public[:12]}…; "
            "restore the hospital's signing key"
        )
    return named


def entry_event(fields: Mapping[str, Any], where: str) -> Event | None:
    """The event of a reserve entry, else None.

    Raises:
        LedgerError: It cannot be read; such a charge must never count for nothing.
    """
    if fields["kind"] != "reserve":
        return None
    try:
        return from_json(fields["event"])
    except (BadMessage, KeyError) as error:
        raise LedgerError(f"{where}: unreadable charge: {error}") from error
