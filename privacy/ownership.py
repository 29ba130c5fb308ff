"""Ownership: which records belong to one protected person, when a record may belong to two.

A consultation has a patient and a clinician. Protecting one of them means grouping by that one;
the report then says that the other is not covered. Protecting both means that everybody linked by
records becomes one unit: with whom a person shares records counts as known, and each such person
can be hidden only together with all others of the unit. Where one unit would swallow much of the
data, protecting both is refused, because noise for such a unit would drown everything.
Source: Ganesh et al. (2025), "It's my data too: private ML for datasets with multi-user training
examples", on fixed-graph neighbours; the components used here are its coarsest safe choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wardround.privacy.errors import BadInput
from wardround.privacy.units import Unit

MOST_SHARE = 0.1


@dataclass(frozen=True)
class Grouping:
    """Records grouped into units of privacy.

    Attributes:
        members: Positions of each unit's records, by ascending first record.
        protects: Whose data one unit holds together.
        assumption: What neighbouring data sets have in common; empty for the plain case.
        not_covered: Other persons that records name and this grouping does not protect.
    """

    members: tuple[tuple[int, ...], ...]
    protects: tuple[Unit, ...]
    assumption: str
    not_covered: tuple[Unit, ...]


def group_records(
    owners: Sequence[Mapping[Unit, str]], protect: Sequence[Unit], most_share: float = MOST_SHARE
) -> Grouping:
    """Units of privacy for records with these owners.

    Args:
        owners: For each record, its owner for each kind of unit the data can be grouped by.
        protect: One kind of unit, or several to protect at once.
        most_share: Largest share of all records that one unit over several kinds may hold.

    Raises:
        BadInput: A record lacks an owner, or protecting all kinds at once is hopeless; says why.
    """
    if not protect:
        raise BadInput("protect is empty; name at least one unit of privacy")
    for position, named in enumerate(owners):
        for kind in protect:
            if not named.get(kind):
                raise BadInput(f"record {position} names no {kind}; it cannot be protected as one")
    others = sorted({kind for named in owners for kind in named} - set(protect))
    if len(protect) == 1:
        keys = [f"{named[protect[0]]}" for named in owners]
        return Grouping(_by_key(keys), tuple(protect), "", tuple(others))
    roots = _components([[(kind, named[kind]) for kind in protect] for named in owners])
    members = _by_key(roots)
    largest = max((len(records) for records in members), default=0)
    if largest > most_share * len(owners):
        both = " and ".join(kind.value for kind in protect)
        raise BadInput(
            f"a unit over {both} would hold more than {most_share:.0%} of the records, because "
            "their records link them; protect one of them, or split the data set so that fewer "
            "are linked"
        )
    assumption = "who shares records with whom counts as known; only what the records say is hidden"
    return Grouping(members, tuple(protect), assumption, tuple(others))


def _by_key(keys: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Positions of equal keys, by first occurrence."""
    groups: dict[str, list[int]] = {}
    for position, key in enumerate(keys):
        groups.setdefault(key, []).append(position)
    return tuple(tuple(positions) for positions in groups.values())


def _components(linked: Sequence[Sequence[tuple[Unit, str]]]) -> list[str]:
    """For each record, a name of the set of persons its owners are linked to."""
    parent: dict[tuple[Unit, str], tuple[Unit, str]] = {}

    def root(person: tuple[Unit, str]) -> tuple[Unit, str]:
        while parent.setdefault(person, person) != person:
            parent[person] = parent[parent[person]]
            person = parent[person]
        return person

    for persons in linked:
        for person in persons[1:]:
            parent[root(person)] = root(persons[0])
    return [repr(root(persons[0])) for persons in linked]
