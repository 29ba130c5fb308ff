"""``dashboard``, ``hospital page`` and ``track`` as commands: what they refuse, what they say."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wardround.privacy.ledger import Ledger
from wardround.privacy.signing import SigningKey
from wardround.study.pages_cli import RunsFolder

Command = Callable[..., Any]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("dashboard", "nowhere"), "nowhere: no such folder"),
        (("hospital", "page", "nowhere"), "nowhere: no such folder"),
        (("dashboard", ".", "--host", "0.0.0.0"), "--host is 0.0.0.0"),
        (("dashboard", ".", "--port", "0"), "--port is 0"),
        (("dashboard", ".", "--certificate", "x.pem"), "--certificate and --key go together"),
        (("hospital", "page", ".", "--policy", "no.toml"), "no.toml: no such file"),
        (("track", ".", "--to", "x"), "not a run folder"),
        (("--log-format", "xml", "tasks"), "--log-format is 'xml'"),
        (("--log-level", "loud", "tasks"), "--log-level is 'loud'"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    wardround: Command, words: tuple[str, ...], says: str
) -> None:
    ended = wardround(*words)
    assert ended.code == 2
    assert says in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("command", [("dashboard",), ("hospital", "page")])
def test_says_where_it_listens_and_never_the_token(
    wardround: Command, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """With the port taken by somebody else, so that it ends at once."""
    folder = tmp_path / "place"
    Ledger(folder, SigningKey.generate()).close()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        token_file = tmp_path / "token"
        ended = wardround(*command, folder, "--port", port, "--token-file", token_file, "--json")
    assert ended.code == 2
    assert ended.document() == {
        "address": f"http://127.0.0.1:{port}/",
        "token_file": str(token_file),
    }
    assert "cannot be listened on" in ended.err
    assert token_file.stat().st_mode & 0o777 == 0o600
    assert token_file.read_text().strip() not in ended.out + ended.err


def test_what_is_not_a_run_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, content in (("broken", "not JSON"), (".new-run-1", "{}")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(content)
    (tmp_path / "notes.txt").write_text("")
    folder = RunsFolder(tmp_path)
    assert folder.runs() == folder.runs() == {}
    assert caplog.text.count("run not shown") == 1  # not at every look


def test_an_absent_sink_is_a_usage_error(
    wardround: Command, small_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert wardround("run", small_study, "--runs", tmp_path / "runs").code == 0
    (run,) = (tmp_path / "runs").iterdir()
    facts = json.loads((run / "run.json").read_text())
    monkeypatch.setitem(sys.modules, "mlflow", None)
    ended = wardround("track", run, "--sink", "mlflow", "--to", tmp_path / "x")
    assert ended.code == 2
    assert "pip install 'wardround[tracking]'" in ended.err
    (shown,) = RunsFolder(tmp_path / "runs").runs().values()
    assert shown.coordinator == facts["coordinator"]
    assert shown.rounds == 2
