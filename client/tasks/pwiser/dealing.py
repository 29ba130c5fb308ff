"""Deals sessions out to hospitals: whole patients, or whole sessions where nobody is named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wardround.client.tasks.base import Record
from wardround.client.tasks.pwiser.generated import LogShape, make_log, make_probes
from wardround.privacy import Unit
from wardround.privacy.errors import BadInput

_PROBE_EVERY = 5

Shares = tuple[list[list[Record]], list[Record]]


def deal_generated(shape: LogShape, hospitals: int, seed: int) -> Shares:
    """Each hospital's made-up log, and public probes."""
    shares = [make_log(shape, f"h{number + 1}", seed) for number in range(hospitals)]
    return shares, make_probes(shape, seed)


def deal_file(source: Path, records: Sequence[Record], hospitals: int) -> Shares:
    """A public file's sessions by turns; every fifth owner's are probes.

    Raises:
        BadInput: There are too few owners for so many hospitals.
    """
    shares: list[list[Record]] = [[] for _ in range(hospitals)]
    probes: list[Record] = []
    # A file where all rows are one user's is dealt by session: it can only be tried out.
    patients = {record.owners.get(Unit.PATIENT, record.id) for record in records}
    named = len(patients) >= 2 * hospitals
    places: dict[str, int] = {}
    for record in records:
        owner = record.owners.get(Unit.PATIENT, record.id) if named else record.id
        place = places.setdefault(owner, len(places))
        turn, rest = divmod(place, _PROBE_EVERY)
        if rest == _PROBE_EVERY - 1:
            probes.append(record)
        else:
            shares[(turn * (_PROBE_EVERY - 1) + rest) % hospitals].append(record)
    if not probes or not all(shares):
        raise BadInput(f"{source}: {len(places)} owners are too few for {hospitals} hospitals")
    return shares, probes
