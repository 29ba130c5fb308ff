"""Files read a line at a time, so that a large collection never has to fit into memory.

Every refusal names file and line, and never repeats what the line says. Knows nothing of what the
lines mean.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wardround.privacy.errors import BadInput

TOO_MUCH = "nested too deeply, or a number of too many digits"


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of each line that is not blank.

    Raises:
        BadInput: The file is missing or cannot be read, or is not UTF-8.
    """
    number = 0
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except FileNotFoundError as error:
        raise BadInput(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}:{number + 1}: not UTF-8 from here on") from error
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error})") from error


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Number and value of each line of JSON lines."""
    for number, line in numbered_lines(path):
        try:
            yield number, json.loads(line)
        except json.JSONDecodeError as error:
            raise BadInput(f"{path}:{number}: not valid JSON: {error.msg}") from error
        except (RecursionError, ValueError) as error:
            raise BadInput(f"{path}:{number}: not usable JSON: {TOO_MUCH}") from error


def columns(path: Path, count: int, tabs_only: bool) -> Iterator[tuple[int, list[str]]]:
    """Number and columns of each line of a table.

    Args:
        path: The file.
        count: How many columns each line must have.
        tabs_only: Columns are parted by tabs alone; otherwise by any blanks.

    Raises:
        BadInput: A line has another number of columns.
    """
    for number, line in numbered_lines(path):
        found = line.split("\t") if tabs_only else line.split()
        if len(found) != count:
            parted = "tabs" if tabs_only else "blanks or tabs"
            raise BadInput(
                f"{path}:{number}: {len(found)} columns; expected {count}, parted by {parted}"
            )
        yield number, found
