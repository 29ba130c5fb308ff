"""Rows of numbers from CSV files with a header. No refusal repeats what a cell says.

Columns may stand in any order; ``id`` and ``patient`` are optional, other columns are ignored.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from wardround.client.tasks.base import Record
from wardround.privacy import Unit
from wardround.privacy.errors import BadInput

Row = tuple[float, ...]


def read_rows(path: Path, names: Sequence[str]) -> list[Record]:
    """The rows of a file, each with the columns ``names`` in that order.

    Raises:
        BadInput: The file is missing or empty, a column is missing, or a cell is no finite number.
    """
    records: list[Record] = []
    seen: set[str] = set()
    for line, cells in _lines(path, names):
        values = []
        for name in names:
            values.append(_number(cells[name], f"{path}:{line}: column {name!r}"))
        identifier = cells.get("id") or f"{path.stem}-{line:06d}"
        if identifier in seen:
            raise BadInput(f"{path}:{line}: id occurs before")
        seen.add(identifier)
        owners = {Unit.RECORD: identifier}
        if "patient" in cells:
            if not cells["patient"]:
                raise BadInput(f"{path}:{line}: patient is empty")
            owners[Unit.PATIENT] = cells["patient"]
        records.append(Record(identifier, owners, tuple(values)))
    if not records:
        raise BadInput(f"{path}: holds no rows")
    return records


def write_rows(records: Sequence[Record], path: Path, names: Sequence[str]) -> None:
    """Write rows that ``read_rows`` reads back as equal records."""
    with_patient = bool(records) and Unit.PATIENT in records[0].owners
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", *(["patient"] if with_patient else []), *names])
        for record in records:
            owner = [record.owners[Unit.PATIENT]] if with_patient else []
            writer.writerow([record.id, *owner, *map(repr, record.content)])


def _lines(path: Path, names: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Number and cells of each row."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            missing = [name for name in names if name not in header]
            if missing:
                raise BadInput(f"{path}:1: column {missing[0]!r} is missing")
            for cells in reader:
                if len(cells) != len(header):
                    raise BadInput(
                        f"{path}:{reader.line_num}: {len(cells)} cells; expected {len(header)}"
                    )
                yield reader.line_num, dict(zip(header, cells, strict=True))
    except FileNotFoundError as error:
        raise BadInput(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path}: cannot be read as CSV") from error


def _number(cell: str, where: str) -> float:
    """A finite number."""
    try:
        value = float(cell)
    except ValueError as error:
        raise BadInput(f"{where} is not a number") from error
    if not math.isfinite(value):
        raise BadInput(f"{where} is not finite")
    return value
