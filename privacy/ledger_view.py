"""Looking at a ledger without touching it: check, sum up, export. Needs no key and no lock.

What ``wardround ledger verify``, ``show`` and ``export`` print; also what an auditor runs on an
exported copy. Knows nothing of budgets; epsilon is computed by whoever holds an accountant.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wardround.privacy.chain import Chain, Entry, LedgerHead, parse_chain, read_chain
from wardround.privacy.disk import Disk
from wardround.privacy.errors import BadInput, BadMessage, LedgerError
from wardround.privacy.events import Event, compose, to_json
from wardround.privacy.journal import LEDGER_FILE, WITNESS_FILE
from wardround.privacy.ledger import REPLIES_FOLDER
from wardround.privacy.replies import Replies
from wardround.privacy.signing import canonical
from wardround.privacy.witness import judge, read_witness

EXPORT_SCHEMA = 1


@dataclass(frozen=True)
class Account:
    """What one data set has been charged for one unit of privacy.

    Attributes:
        dataset: Its name in the ledger.
        unit: Who is protected.
        studies: Names of the studies that were charged, in order.
        rounds: How many rounds were charged.
        answered: How many of them were answered.
        event: Everything that was charged.
        last: Time of the last charge.
    """

    dataset: str
    unit: str
    studies: tuple[str, ...]
    rounds: int
    answered: int
    event: Event
    last: str

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return vars(self) | {"studies": list(self.studies), "event": to_json(self.event)}


@dataclass(frozen=True)
class LedgerSummary:
    """A ledger that passed every check.

    Attributes:
        public_key: Who signed it.
        head: Where it stands; None for an empty one.
        entries: How many entries it has.
        accounts: What each data set was charged, by data set and unit.
        notes: Mended crashes, clocks set back, an unfinished last line.
    """

    public_key: str
    head: LedgerHead | None
    entries: int
    accounts: tuple[Account, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return vars(self) | {
            "head": vars(self.head) if self.head else None,
            "accounts": [account.to_json() for account in self.accounts],
            "notes": list(self.notes),
        }


def check_ledger(
    folder: Path, public: str | None = None, seen: LedgerHead | None = None
) -> LedgerSummary:
    """The summary of the ledger in ``folder``, once chain, signatures, witness and replies agree.

    Args:
        folder: The ledger's folder; nothing in it is changed, and it may be in use.
        public: Whose signatures to expect; by default the key the ledger names.
        seen: A head somebody outside holds, which the ledger must contain.

    Raises:
        BadInput: There is no ledger.
        LedgerError: What is wrong, by file and line.
    """
    chain = witnessed_chain(folder, public)
    summary = summarise(chain, str(folder / LEDGER_FILE), seen)
    replies = Replies(folder / REPLIES_FOLDER, Disk())
    for entry in chain.entries:
        if entry.fields["kind"] == "commit":
            request = (entry.fields["run"], entry.fields["round"])
            replies.read(request, entry.fields["reply_sha256"])
    return summary


def witnessed_chain(folder: Path, public: str | None = None) -> Chain:
    """The entries of the ledger in ``folder``, as far as its witness confirms them.

    Raises:
        BadInput: There is no ledger.
        LedgerError: Chain, signatures or witness do not agree.
    """
    path = folder / LEDGER_FILE
    if not path.exists():
        raise BadInput(f"{path}: no such ledger")
    # The witness first: a ledger in use may grow between the two, and must not look cut for it.
    testimony = read_witness(folder / WITNESS_FILE)
    chain = read_chain(path, public)
    judge(testimony, chain, path)
    return chain


def summarise(chain: Chain, name: str, seen: LedgerHead | None = None) -> LedgerSummary:
    """What a checked chain adds up to; ``LedgerError`` when it does not contain ``seen``."""
    entries = chain.entries
    if seen is not None and seen not in [entry.head for entry in entries]:
        raise LedgerError(f"{name}: does not hold entry {seen.seq} ({seen.sha256[:12]}…)")
    notes = [
        f"entry {entry.fields['seq']}: the clock was {entry.fields['clock']}"
        for entry in entries
        if "clock" in entry.fields
    ]
    notes += [
        f"entry {entry.fields['seq']}: an unfinished entry was cut off after a crash"
        for entry in entries
        if entry.fields["kind"] == "repair"
    ]
    if chain.tail:
        notes.append(f"{len(chain.tail)} bytes of an unfinished entry at the end")
    head = entries[-1].head if entries else None
    return LedgerSummary(chain.public, head, len(entries), _accounts(entries), tuple(notes))


def export_ledger(folder: Path) -> dict[str, Any]:
    """The whole chain as one JSON document that ``check_export`` can verify elsewhere."""
    check_ledger(folder)
    lines = (folder / LEDGER_FILE).read_bytes().rpartition(b"\n")[0].split(b"\n")
    return {"schema": EXPORT_SCHEMA, "records": [json.loads(line) for line in lines]}


def check_export(
    document: Mapping[str, Any], public: str | None = None, seen: LedgerHead | None = None
) -> LedgerSummary:
    """The summary of an exported ledger, once its chain and signatures hold.

    Raises:
        BadMessage: Not an exported ledger.
        LedgerError: An entry is damaged or forged, or ``seen`` is missing.
    """
    if document.get("schema") != EXPORT_SCHEMA or not isinstance(document.get("records"), list):
        raise BadMessage(f"not an exported ledger of schema {EXPORT_SCHEMA}")
    try:
        lines = [canonical(record) + b"\n" for record in document["records"]]
    except (ValueError, RecursionError) as error:
        raise BadMessage("an exported ledger with a value that no ledger holds") from error
    return summarise(parse_chain(b"".join(lines), "export", public), "export", seen)


def _accounts(entries: tuple[Entry, ...]) -> tuple[Account, ...]:
    """The charges, grouped by data set and unit."""
    commits = (entry.fields for entry in entries if entry.fields["kind"] == "commit")
    answered = {(fields["run"], fields["round"]) for fields in commits}
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        if entry.event is not None:
            key = (entry.fields["dataset"], entry.fields["unit"])
            groups.setdefault(key, []).append(entry)
    return tuple(
        Account(
            dataset=dataset,
            unit=unit,
            studies=tuple(dict.fromkeys(entry.fields["study"] for entry in group)),
            rounds=len(group),
            answered=sum((e.fields["run"], e.fields["round"]) in answered for e in group),
            event=compose(*(entry.event for entry in group if entry.event is not None)),
            last=group[-1].fields["time"],
        )
        for (dataset, unit), group in sorted(groups.items())
    )
