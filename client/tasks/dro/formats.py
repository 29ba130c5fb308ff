"""Queries from JSON lines, or from a folder of two text files as they are published.

Every refusal names file, line and field, and never repeats what the file says. The folder holds
``harmful.txt`` and ``harmless.txt``, a query a line. Source of that layout: Zheng et al. (2024),
released ``data/`` and ``data_harmless/``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wardround.client.tasks.base import Record
from wardround.client.tasks.dro.records import Query
from wardround.client.tasks.lines import json_lines, numbered_lines
from wardround.privacy import Unit
from wardround.privacy.errors import BadInput
from wardround.privacy.tables import nearest

LABELS = {"harmful": True, "harmless": False}
_OWNERS = {"patient": Unit.PATIENT, "clinician": Unit.CLINICIAN}
_KNOWN = ["id", "query", "label", "good", "bad", *_OWNERS]


def read_queries(path: Path) -> list[Record]:
    """The queries of a file, or of a folder's two text files, in order.

    A record is its own privacy unit, and a patient's or clinician's too where every line names one.

    Raises:
        BadInput: Nothing to read, not UTF-8, or a line that cannot be used.
    """
    if path.is_dir():
        return [record for label in LABELS for record in _read_text(path / f"{label}.txt", label)]
    records: list[Record] = []
    seen: dict[str, int] = {}
    for line, item in json_lines(path):
        try:
            record = _record(item, f"{path.stem}-{line:06d}")
        except ValueError as error:
            raise BadInput(f"{path}:{line}: {error}") from error
        if record.id in seen:
            raise BadInput(f"{path}:{line}: id occurs before, on line {seen[record.id]}")
        if records and record.owners.keys() != records[0].owners.keys():
            raise BadInput(
                f"{path}:{line}: patient and clinician must be given on all lines or on none"
            )
        seen[record.id] = line
        records.append(record)
    if not records:
        raise BadInput(f"{path}: holds no queries")
    return records


def write_queries(records: Sequence[Record], path: Path) -> None:
    """Write queries as JSON lines that ``read_queries`` reads back as equal records."""
    names = {query: label for label, query in LABELS.items()}
    lines = []
    for record in records:
        query: Query = record.content
        item: dict[str, Any] = {"id": record.id}
        item |= {
            name: record.owners[unit] for name, unit in _OWNERS.items() if unit in record.owners
        }
        item |= {"query": query.text, "label": names[query.harmful]}
        item |= {name: text for name in ("good", "bad") if (text := getattr(query, name))}
        lines.append(json.dumps(item, ensure_ascii=False) + "\n")
    path.write_text("".join(lines), encoding="utf-8")


def _read_text(path: Path, label: str) -> list[Record]:
    """A query a line, all of one label."""
    found = []
    for line, text in numbered_lines(path):
        name = f"{label}-{line:06d}"
        found.append(Record(name, {Unit.RECORD: name}, Query(text.strip(), LABELS[label])))
    if not found:
        raise BadInput(f"{path}: holds no queries")
    return found


def _record(item: object, default_id: str) -> Record:
    """One line's record; ``ValueError`` says what is wrong with it."""
    if not isinstance(item, dict):
        raise ValueError("not a JSON object")
    for name in item:
        if name not in _KNOWN:
            raise ValueError(f"unknown field{nearest(str(name), _KNOWN)}")
    identifier = _text(item, "id", default_id)
    owners = {Unit.RECORD: identifier}
    owners |= {unit: _text(item, name) for name, unit in _OWNERS.items() if name in item}
    if item.get("label") not in list(LABELS):
        raise ValueError(f"label must be one of {', '.join(LABELS)}")
    good, bad = (_text(item, name) if name in item else "" for name in ("good", "bad"))
    return Record(identifier, owners, Query(_text(item, "query"), LABELS[item["label"]], good, bad))


def _text(item: Mapping[str, Any], name: str, default: str | None = None) -> str:
    """A text that is not blank."""
    value = item.get(name, default)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be a text that is not blank")
    return value
