"""What stays for long says what it does; a command that prints a result says only what is wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

Command = Callable[..., Any]
READY = ("hospital", "ready", "--socket", "none/socket", "--within-s", "0.01")


@pytest.mark.parametrize(
    ("words", "told", "level"),
    [
        (READY, "", logging.INFO),
        (("coordinator", "run", "none.toml"), "", logging.INFO),
        (("tasks",), "", logging.WARNING),
        (("--log-level", "error", *READY), "", logging.ERROR),
        (READY, "debug", logging.DEBUG),
    ],
)
def test_hospital_and_coordinator_log_what_they_do(
    wardround: Command,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    told: str,
    level: int,
) -> None:
    monkeypatch.setenv("WARDROUND_LOG_LEVEL", told)
    wardround(*words)
    assert logging.getLogger("wardround").level == level
