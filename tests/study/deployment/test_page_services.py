"""Supervisors start the pages of both ends, on loopback, behind the token they say."""

from __future__ import annotations

import socket
import time
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wardround.privacy.errors import BadInput
from wardround.privacy.ledger import Ledger
from wardround.privacy.signing import SigningKey
from wardround.study.deployment.hospital import HospitalPlace
from wardround.study.deployment.pages import dashboard_service, page_service
from wardround.study.deployment.processes import Launcher
from wardround.study.deployment.supervision import Service, Supervisor
from wardround.study.provisioning.hospital import HospitalFolder

Command = Callable[..., Any]
EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "medical-editing" / "policy.toml"
WITHIN_S = 60.0


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def place(folder: Path) -> HospitalPlace:
    folder.mkdir()
    (folder / "records.jsonl").touch()
    return HospitalPlace(HospitalFolder(folder), EXAMPLE, folder / "records.jsonl", 9094)


def served(service: Service, port: int, logs: Path) -> str:
    """What the page answers without a token once its supervisor calls it ready."""
    supervisor = Supervisor([replace(service, after=())], Launcher(logs, logs))
    answers: list[str] = []
    deadline = time.monotonic() + WITHIN_S

    def asked() -> bool:
        if supervisor.all_ready:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10) as answer:
                answers.append(answer.read().decode())
        return bool(answers) or time.monotonic() > deadline

    supervisor.run(asked)
    assert answers, (logs / f"{service.name}.log").read_text(encoding="utf-8")
    return answers[0]


def test_a_coordinators_supervisor_serves_the_dashboard(tmp_path: Path, port: int) -> None:
    service, where = dashboard_service(tmp_path / "runs", port)
    assert served(service, port, tmp_path) == "ok\n"
    token = tmp_path / "runs" / "dashboard.token"
    assert where == f"dashboard: http://127.0.0.1:{port}/, login token in {token}"
    assert token.stat().st_mode & 0o777 == 0o600
    assert token.read_text(encoding="ascii").strip() not in " ".join(service.command)


def test_a_hospitals_supervisor_serves_its_page(tmp_path: Path, port: int) -> None:
    home = place(tmp_path / "north")
    Ledger(home.folder.path / "ledger", SigningKey.generate()).close()
    service, where = page_service(home, port)
    assert service.after == ("custodian",)  # which makes the ledger
    assert served(service, port, tmp_path) == "ok\n"
    token = tmp_path / "north" / "page.token"
    assert where == f"page: http://127.0.0.1:{port}/, login token in {token}"
    assert token.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("wrong", [0, -1, 65536])
def test_a_port_that_is_none_is_named(tmp_path: Path, wrong: int) -> None:
    with pytest.raises(BadInput, match=f"--dashboard-port is {wrong};"):
        dashboard_service(tmp_path / "runs", wrong)
    assert not (tmp_path / "runs").exists()
    with pytest.raises(BadInput, match=f"--page-port is {wrong};"):
        page_service(place(tmp_path / "north"), wrong)


def test_an_isolated_custodian_is_given_no_page(wardround: Command, tmp_path: Path) -> None:
    home = place(tmp_path / "north")
    ended = wardround("hospital", "up", "--folder", home.folder.path, "--records", home.records,
                      "--policy", EXAMPLE, "--isolate", "--page-port", 8051)  # fmt: skip
    assert ended.code == 2
    assert "start wardround hospital page yourself" in ended.err
