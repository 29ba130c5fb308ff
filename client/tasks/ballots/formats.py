"""Ballots from JSON lines: who ranks what on which agenda.

``{"agenda": "a1", "clinician": "c7", "ranking": [[2], [0, 1]]}``: candidates by position, tiers
best first; a tier of one may be a bare number. ``approve`` in place of ``ranking`` lists who is
approved of: a ranking of one tier. Refusals name file, line and field, and never repeat
what a ballot says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wardround.client.tasks.ballots.agenda import Agenda, Tiers
from wardround.client.tasks.base import Record
from wardround.client.tasks.lines import json_lines
from wardround.privacy import Unit
from wardround.privacy.errors import BadInput
from wardround.privacy.tables import nearest

_FIELDS = ("agenda", "clinician", "ranking", "approve", "id")


@dataclass(frozen=True)
class Ballot:
    """One clinician's ranking on one agenda.

    Attributes:
        agenda: Its id.
        tiers: Positions of candidates, best first; whoever is left out is below all of them.
    """

    agenda: str
    tiers: Tiers


def read_ballots(path: Path, agendas: Mapping[str, Agenda]) -> list[Record]:
    """The ballots of a file, in its order; a clinician owns all of hers.

    Raises:
        BadInput: The file is missing, empty or not JSON lines, or a line cannot be used, names an
            unknown agenda or is a clinician's second ballot on one.
    """
    records: list[Record] = []
    seen: set[tuple[str, str]] = set()
    for number, item in json_lines(path):
        try:
            record = _record(item, agendas, f"{path.stem}-{number:06d}")
        except ValueError as error:
            raise BadInput(f"{path}:{number}: {error}") from error
        key = record.content.agenda, record.owners[Unit.CLINICIAN]
        if key in seen:
            raise BadInput(f"{path}:{number}: this clinician has voted on this agenda before")
        seen.add(key)
        records.append(record)
    if not records:
        raise BadInput(f"{path}: holds no ballots")
    return records


def write_ballots(records: Sequence[Record], path: Path) -> None:
    """Write ballots as JSON lines that ``read_ballots`` reads back as equal records."""
    lines = []
    for record in records:
        ballot: Ballot = record.content
        item = {
            "id": record.id,
            "agenda": ballot.agenda,
            "clinician": record.owners[Unit.CLINICIAN],
            "ranking": ballot.tiers,
        }
        lines.append(json.dumps(item) + "\n")
    path.write_text("".join(lines), encoding="utf-8")


def _record(item: object, agendas: Mapping[str, Agenda], default_id: str) -> Record:
    """One line's record; ``ValueError`` says what is wrong with it."""
    if not isinstance(item, dict):
        raise ValueError("not a JSON object")
    for name in item:
        if name not in _FIELDS:
            raise ValueError(f"unknown field{nearest(str(name), list(_FIELDS))}")
    for name in ("agenda", "clinician"):
        if not isinstance(item.get(name), str) or not item[name]:
            raise ValueError(f"{name} must be a text")
    if item["agenda"] not in agendas:
        raise ValueError(f"agenda is not one of the study's {len(agendas)}")
    identifier = item.get("id", default_id)
    if not isinstance(identifier, str) or not identifier:
        raise ValueError("id must be a text")
    if "approve" in item and "ranking" in item:
        raise ValueError("give ranking or approve, not both")
    ranking = [item["approve"]] if "approve" in item else item.get("ranking")
    tiers = _tiers(ranking, len(agendas[item["agenda"]].candidates))
    owners = {Unit.CLINICIAN: item["clinician"], Unit.RECORD: identifier}
    return Record(identifier, owners, Ballot(item["agenda"], tiers))


def _tiers(ranking: Any, candidates: int) -> Tiers:
    """A ranking of some of the candidates."""
    if not isinstance(ranking, list) or not ranking:
        raise ValueError("ranking must be a list of positions, best first")
    tiers = tuple(tuple(tier) if isinstance(tier, list) else (tier,) for tier in ranking)
    named = [place for tier in tiers for place in tier]
    if not all(isinstance(place, int) and not isinstance(place, bool) for place in named):
        raise ValueError("ranking must hold positions of candidates")
    if not all(tiers) or len(set(named)) != len(named):
        raise ValueError("ranking holds an empty tier, or a candidate twice")
    if not all(0 <= place < candidates for place in named):
        raise ValueError(f"ranking names a candidate outside 0..{candidates - 1}")
    return tiers
