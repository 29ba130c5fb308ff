"""What goes to the log, and how: one line an event, as text or as JSON for machines.

Events are logged as ``log.info("trained round=%(round)d", {"round": 3})``: the values are named, so
a JSON line carries them as they are. Nothing logs records, arrays, keys, tokens or the folders that
hold them; ``tests/study/test_silence.py`` plants such things and looks for them.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TextIO

from wardround.privacy.errors import BadInput

FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")
ROOT = "wardround"


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the event's own named values."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; an exception is named by its kind, because its text may say anything."""
        line: dict[str, object] = {
            "time": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if isinstance(record.args, Mapping):
            line["fields"] = {str(name): _plain(value) for name, value in record.args.items()}
        if raised := _raised(record):
            line["exception"] = raised
        return json.dumps(line, ensure_ascii=False)


class TextLines(logging.Formatter):
    """The same for a person: ``time level logger message``, always one line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        said = record.getMessage().replace("\n", "\\n").replace("\r", "\\r")
        raised = _raised(record)
        kind = f" exception={raised}" if raised else ""
        return f"{_moment(record)} {record.levelname.lower()} {record.name} {said}{kind}"


def set_up_logs(form: str, level: str, stream: TextIO | None = None) -> None:
    """Send what this package logs to ``stream``, or to standard error.

    Raises:
        BadInput: No such format or level.
    """
    if form not in FORMATS:
        raise BadInput(f"--log-format is {form!r}; expected one of {', '.join(FORMATS)}")
    if level not in LEVELS:
        raise BadInput(f"--log-level is {level!r}; expected one of {', '.join(LEVELS)}")
    handler = logging.StreamHandler(stream) if stream else _StandardError()
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    root = logging.getLogger(ROOT)
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())


class _StandardError(logging.StreamHandler[TextIO]):
    """Whatever is standard error at the moment of writing."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        """Looked up each time; whoever replaces standard error gets the lines."""
        return sys.stderr

    @stream.setter
    def stream(self, value: TextIO) -> None:
        raise AttributeError("this handler has no stream of its own")


def _raised(record: logging.LogRecord) -> str:
    """The kind of a logged exception; its text may say anything, so it stays out."""
    kind = record.exc_info[0] if record.exc_info else None
    return kind.__name__ if kind is not None else ""


def _moment(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _plain(value: object) -> object:
    """A value as JSON has it."""
    return value if isinstance(value, int | float | str | bool | None) else str(value)
