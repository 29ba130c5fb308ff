"""Runs the command in this process, as a shell would see it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from wardround.study.cli import main


@dataclass(frozen=True)
class Ended:
    """Exit code, standard output and standard error of a command."""

    code: int
    out: str
    err: str

    def document(self) -> dict[str, Any]:
        """Standard output as one JSON document."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


Command = Callable[..., Ended]


@pytest.fixture
def wardround(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Command:
    """``wardround("run", path)``: never raises for an error that the command reports."""

    def command(*words: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["wardround", *map(str, words)])
        monkeypatch.chdir(tmp_path)
        capsys.readouterr()
        try:
            main()
            code: object = 0
        except SystemExit as end:
            code = end.code
        caught = capsys.readouterr()
        return Ended(int(str(code or 0)), caught.out, caught.err)

    return command
