"""What every test may rely on: no network beyond loopback, one small study that runs in seconds."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Tests run beside each other and beside other work; threads that wait for one another make them
# slower by orders of magnitude on a busy machine. Processes that tests start inherit this.
os.environ["OMP_NUM_THREADS"] = "1"


def is_local(address: object) -> bool:
    """Whether a socket address stays on this machine."""
    if isinstance(address, str | bytes):
        return True  # a Unix socket's path
    host = str(address[0]) if isinstance(address, tuple) else ""
    try:
        return host in ("", "localhost") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Any connection that would leave the machine fails the test that tried it."""
    attempts: list[object] = []
    real_connect, real_lookup = socket.socket.connect, socket.getaddrinfo

    def connect(self: socket.socket, address: Any) -> None:
        if not is_local(address):
            attempts.append(address)
            raise OSError(f"tests open no connection to {address}")
        real_connect(self, address)

    def lookup(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host is not None and not is_local((host,)):
            attempts.append(host)
            raise OSError(f"tests look up no name such as {host}")
        return real_lookup(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    yield
    assert not attempts, f"network use: {attempts}"


@pytest.fixture(scope="session")
def failing_disk() -> ModuleType:
    """The module ``failing_disk``: disks that stop, tear or refuse at a chosen operation."""
    spec = importlib.util.spec_from_file_location("failing_disk", ROOT / "tests/failing_disk.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SMALL = {
    "rounds = 15": "rounds = 2",
    "count = 4": "count = 2",
    "records_per_hospital = 320": "records_per_hospital = 60",
    "epsilon = 3.0 ": "noise_multiplier = 1.0 ",
    "steps_per_round = 10": "steps_per_round = 2",
}
SMALL_TASK = """
corroborated = 2
corroborated_support = 16
weak = 1
weak_support = 4
single = 1
filler_facts = 40
random_probes = 1
"""


@pytest.fixture
def small_study(tmp_path: Path) -> Path:
    """The example study cut down: 2 hospitals of 60 records, 2 rounds of 2 steps."""
    example = ROOT / "examples" / "medical-editing"
    text = (example / "study.toml").read_text(encoding="utf-8")
    for old, new in SMALL.items():
        assert old in text, f"the example no longer says {old!r}"
        text = text.replace(old, new)
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "study.toml").write_text(text + SMALL_TASK, encoding="utf-8")
    policy = (example / "policy.toml").read_text(encoding="utf-8")
    (folder / "policy.toml").write_text(policy, encoding="utf-8")
    return folder / "study.toml"
