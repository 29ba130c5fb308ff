"""A file of a benchmark's rows, one JSON object a line: what was run is not run again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from wardround.privacy.errors import BadInput

Key = TypeVar("Key")
Row = Mapping[str, Any]


def read_rows(path: Path | None, key: Callable[[Row], Key]) -> dict[Key, dict[str, Any]]:
    """Rows that were run before, by what tells them apart; none without a file.

    Raises:
        BadInput: The file holds something else.
    """
    if path is None or not path.exists():
        return {}
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return {key(row): row for row in rows}
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: holds something else than rows of this benchmark") from error


def append_row(path: Path | None, row: Row) -> None:
    """Add a row to the file, if there is one."""
    if path is not None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
