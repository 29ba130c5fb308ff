"""What a hospital's engineer sets up: where policy, records, keys and ledger are, and who may ask.

One folder a hospital. Knows nothing of models or training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wardround.client.tasks.base import Record
from wardround.privacy.ownership import group_records
from wardround.privacy.units import Unit

HOSPITAL_KEY = Path("keys") / "signing.pem"  # inside the hospital's folder


@dataclass(frozen=True)
class Hospital:
    """A hospital's files and the coordinator it answers to.

    Attributes:
        name: What the coordinator calls it.
        folder: Keys and ledger live here; made when absent.
        policy: The policy file.
        records: The data, in a format the task reads.
        coordinator: The coordinator's public key; plans by anybody else are refused.
        members: Public key of every hospital it will make secure sums with, itself included, by
            name; as its own engineer was told them, never as the coordinator says. Without any it
            makes none.
        part: Which share of ``records`` is this hospital's, as (index, of how many); a whole file
            is (0, 1). For trying a study on one machine.
    """

    name: str
    folder: Path
    policy: Path
    records: Path
    coordinator: str
    members: Mapping[str, str] = field(default_factory=dict)
    part: tuple[int, int] = (0, 1)

    @property
    def key(self) -> Path:
        """The signing key; it never leaves this folder."""
        return self.folder / HOSPITAL_KEY

    @property
    def ledger(self) -> Path:
        """Folder of the ledger."""
        return self.folder / "ledger"

    @property
    def secure_sums(self) -> Path:
        """Folder of what secure sums need to go on after a restart."""
        return self.folder / "secure-sums"


def share(records: Sequence[Record], part: tuple[int, int]) -> list[Record]:
    """Every ``part[1]``-th record from ``part[0]`` on: the shares are disjoint and complete."""
    index, parts = part
    return list(records[index::parts])


def group_units(records: Sequence[Record], kind: Unit) -> list[tuple[Record, ...]]:
    """Records of the same owner together, one tuple a privacy unit, in order of first appearance.

    Raises:
        BadInput: A record does not say who owns it at this granularity.
    """
    grouping = group_records([record.owners for record in records], [kind])
    return [tuple(records[i] for i in members) for members in grouping.members]
