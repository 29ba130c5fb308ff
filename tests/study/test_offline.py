"""Nothing is asked of any network, and help is answered without loading a model library."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Python imports sitecustomize in every process it starts, so this sees child processes too.
GUARD = """
import ipaddress, os, socket
def _local(address):
    if not isinstance(address, tuple):
        return True
    try:
        return address[0] in ("", "localhost") or ipaddress.ip_address(address[0]).is_loopback
    except ValueError:
        return False
def _note(what):
    with open(os.environ["GUARD_LOG"], "a") as log:
        log.write(f"{what}\\n")
    raise OSError(f"no network here: {what}")
_connect, _lookup = socket.socket.connect, socket.getaddrinfo
socket.socket.connect = lambda s, a: _connect(s, a) if _local(a) else _note(a)
socket.getaddrinfo = lambda h, *r, **k: (
    _lookup(h, *r, **k) if h is None or _local((h,)) else _note(h))
"""


def run_guarded(tmp_path: Path, *words: str) -> tuple[subprocess.CompletedProcess[str], str]:
    """Run Python with the guard; returns the process and what it tried to reach."""
    guard = tmp_path / "guard"
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(GUARD, encoding="utf-8")
    log = tmp_path / "guard.log"
    home = tmp_path / "home"
    home.mkdir()
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(guard), os.environ.get("PYTHONPATH", "")]),
        "GUARD_LOG": str(log),
        "HOME": str(home),
    }
    for name in ("FLWR_TELEMETRY_ENABLED", "FLWR_DISABLE_UPDATE_CHECK"):
        environment.pop(name, None)  # the command must set these itself
    ended = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False, env=environment
    )
    return ended, log.read_text(encoding="utf-8") if log.exists() else ""


@pytest.mark.slow
def test_a_whole_run_asks_nothing_of_the_network(small_study: Path, tmp_path: Path) -> None:
    words = ("-m", "wardround.study", "run", str(small_study), "--runs", str(tmp_path / "runs"))
    ended, reached = run_guarded(tmp_path, *words)
    assert ended.returncode == 0, ended.stderr
    assert reached == ""


def test_the_guard_sees_an_attempt(tmp_path: Path) -> None:
    attempt = "import socket; socket.create_connection(('example.org', 80))"
    ended, reached = run_guarded(tmp_path, "-c", attempt)
    assert ended.returncode != 0
    assert "example.org" in reached


@pytest.mark.parametrize("words", [("--help",), ("tasks", "--json"), ("strategies", "--json")])
def test_quick_commands_do_not_import_torch(words: tuple[str, ...]) -> None:
    program = (
        "import sys; from wardround.study.cli import main\n"
        f"sys.argv = ['wardround', *{words!r}]\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "sys.exit(3 if {'torch', 'flwr', 'transformers'} & set(sys.modules) else 0)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert ended.returncode == 0, ended.stdout
