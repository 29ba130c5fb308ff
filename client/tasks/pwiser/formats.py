"""Click logs as csv: MTReclib's AliExpress, torch-rechub's Ali-CCP, and columns of one's own.

Every row is one exposure. A refusal names file, line and column and never repeats what a row says.
"""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from wardround.client.tasks.base import Record
from wardround.client.tasks.lines import numbered_lines
from wardround.client.tasks.pwiser.columns import Columns
from wardround.client.tasks.pwiser.records import Exposure, Session, session_record
from wardround.privacy import Unit
from wardround.privacy.errors import BadInput
from wardround.privacy.tables import nearest


def read_log(path: Path, columns: Columns, blocks: int) -> list[Record]:
    """The sessions of a file, in the order of their first rows.

    Args:
        path: A csv file with a header.
        columns: What its columns are.
        blocks: Over how many blocks sessions are spread, each by a hash of its own name alone.

    Raises:
        BadInput: The file is missing or empty, its header is not that of ``columns``, or a row
            cannot be used, such as a conversion without a click.
    """
    sessions: dict[str, tuple[str, list[Exposure]]] = {}
    for number, row in _rows(path, columns):
        try:
            exposure = _exposure(row, columns)
            patient = row[columns.patient] if columns.patient else ""
            session = row[columns.session] if columns.session else f"{path.stem}-{number:07d}"
            for name, value in ((columns.session, session), (columns.patient, patient)):
                if name and not value:
                    raise ValueError(f"{name} is empty")
        except ValueError as error:
            raise BadInput(f"{path}:{number}: {error}") from error
        owner, exposures = sessions.setdefault(session, (patient, []))
        if owner != patient:
            raise BadInput(f"{path}:{number}: {columns.session} has rows of two patients")
        exposures.append(exposure)
    if not sessions:
        raise BadInput(f"{path}: holds no exposures")
    return [
        session_record(name, tuple(exposures), patient, block_of(name, blocks))
        for name, (patient, exposures) in sessions.items()
    ]


def write_log(records: Sequence[Record], columns: Columns, path: Path) -> None:
    """Write sessions as a file that ``read_log`` reads back as equal ones.

    Columns are those of ``columns`` but the ignored ones; a record's name is its session, where
    sessions have a column.
    """
    names = [name for name in dict.fromkeys(columns.names) if name not in columns.ignored]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        for record in records:
            session: Session = record.content
            for exposure in session.exposures:
                row: dict[str, object] = dict(
                    zip(columns.categorical, exposure.categorical, strict=True)
                )
                row |= dict(zip(columns.numerical, exposure.numerical, strict=True))
                row |= {columns.click: int(exposure.click)}
                row |= {columns.conversion: int(exposure.conversion)}
                keys = ((columns.session, record.id), (columns.patient, _patient(record)))
                row |= {name: value for name, value in keys if name}
                writer.writerow([row[name] for name in names])


def block_of(session: str, blocks: int) -> str:
    """The block of a session: a hash of its own name, so no other session decides where it is."""
    digest = hashlib.sha256(f"pwiser/block/{session}".encode()).digest()
    return f"block-{int.from_bytes(digest[:8], 'big') % blocks}"


def _patient(record: Record) -> str:
    return record.owners.get(Unit.PATIENT, "")


def _rows(path: Path, columns: Columns) -> Iterator[tuple[int, dict[str, str]]]:
    """Line and cells of each row, by column."""
    lines = numbered_lines(path)
    first = next(lines, None)
    if first is None:
        raise BadInput(f"{path}: holds no header")
    header = _cells(path, *first)
    wanted = set(columns.names)
    for place, name in enumerate(header, 1):
        if name not in wanted:
            hint = nearest(name, columns.names)
            raise BadInput(f"{path}:{first[0]}: column {place} is not of the study{hint}")
    missing = sorted(wanted - set(header) - set(columns.ignored))
    if missing or len(set(header)) != len(header):
        what = f"column {missing[0]!r} is missing" if missing else "a column is there twice"
        raise BadInput(f"{path}:{first[0]}: {what}")
    for number, line in lines:
        cells = _cells(path, number, line)
        if len(cells) != len(header):
            raise BadInput(f"{path}:{number}: {len(cells)} columns; expected {len(header)}")
        yield number, dict(zip(header, cells, strict=True))


def _cells(path: Path, number: int, line: str) -> list[str]:
    """The cells of one line; a quoted line end is not part of this format."""
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error as error:
        raise BadInput(f"{path}:{number}: not csv ({error})") from error


def _exposure(row: dict[str, str], columns: Columns) -> Exposure:
    """What a row says; ``ValueError`` names the column that cannot be used."""
    categorical = tuple(
        min(_index(row[name], name), values) for name, values in columns.categorical.items()
    )
    numerical = tuple(_number(row[name], name) for name in columns.numerical)
    click, conversion = (_flag(row[name], name) for name in (columns.click, columns.conversion))
    if conversion and not click:
        raise ValueError(f"{columns.conversion} is 1 and {columns.click} is 0")
    return Exposure(categorical, numerical, click, conversion)


def _number(cell: str, name: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number")
    return value


def _index(cell: str, name: str) -> int:
    value = _number(cell, name)
    if value < 0 or value != int(value):
        raise ValueError(f"{name} must be a whole number, 0 or more")
    return int(value)


def _flag(cell: str, name: str) -> bool:
    value = _number(cell, name)
    if value not in (0.0, 1.0):
        raise ValueError(f"{name} must be 0 or 1")
    return value == 1.0
