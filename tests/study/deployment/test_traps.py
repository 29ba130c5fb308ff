"""Flower's own traps, found by trying, against real SuperNodes, relays and executors.

Adapters of more than 4 MiB, because that is gRPC's limit on a message. What supervisor and
coordinator do about each trap is tested without processes in ``test_supervision.py`` and
``tests/server/test_resending.py``.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from wardround.study.deployment.processes import PYTHON
from wardround.study.deployment.rehearsal import Ports, Rehearsal

PORTS = {"resident": Ports(23_400), "flower": Ports(23_500)}
MIB = 1 << 20


@pytest.mark.fault
@pytest.mark.deployment
def test_relay_and_supernode_that_die_in_a_round_and_messages_beyond_grpcs_limit(
    small_study: Path, tmp_path: Path, together: ModuleType
) -> None:
    together.rewrite(small_study, 8, {"rank = 8": "rank = 1024"})

    def make(pattern: Any) -> Rehearsal:
        return Rehearsal(tmp_path / "traps", PORTS["resident"], seed=0)

    with together.together(small_study, tmp_path / "alone", make) as running:
        home = running.federation.hospital("hospital-1")
        refuses_a_secret_with_a_line_end(home, PORTS["resident"].node(0), tmp_path)

        # A SuperNode whose executor died stays online and waits for ever.
        reached = in_a_round(running, "hospital-1")
        node = running.find("hospital-1", "supernode")
        assert running.strike("hospital-1", "relay")
        running.wait_for_round(reached + 2)
        assert running.find("hospital-1", "supernode") not in (None, node)

        # One that was killed counts as online for up to a minute, and is turned away meanwhile.
        reached, began = in_a_round(running, "hospital-2"), time.monotonic()
        assert running.strike("hospital-2", "supernode")
        running.wait_for_round(reached + 2)
        assert time.monotonic() - began > 15.0
        said = re.sub(r"\x1b\[[0-9;]*m", "", running.said("hospital-2", "supernode"))
        assert "[code: 2004]" in said
        assert "Exit Code: 305" in said
    records = running.require_all_is_well()
    assert min(answer.bytes_up for answer in records[0].answers) > 4 * MIB
    assert records[0].bytes_down > 2 * 4 * MIB
    resent = running.said("coordinator", "serverapp").count("sent again")
    assert 2 <= resent <= 4


def in_a_round(running: Any, hospital: str) -> int:
    """Wait for a hospital's custodian to be at work; rounds that had ended before."""

    def asked() -> int:
        return len(re.findall("Receiving: train", running.said(hospital, "supernode")))

    before = asked()
    running.wait_for(lambda: asked() > before, f"a message for {hospital}")
    return int(running.rounds())


def refuses_a_secret_with_a_line_end(home: Path, port: int, tmp_path: Path) -> None:
    """Flower reads every byte of a secret's file; an editor's or ``echo``'s line end included."""
    secret = tmp_path / "edited.secret"
    secret.write_bytes((home / "keys" / "superexec.secret").read_bytes() + b"\n")
    ended = subprocess.run(
        [PYTHON, "-P", "-m", "wardround.study", "hospital", "relay",
         "--supernode", f"127.0.0.1:{port}", "--secret", str(secret),
         "--supernode-authority", str(home / "run" / "loopback.crt"),
         "--socket", str(home / "run" / "custodian" / "socket"),
         "--allow", str(home / "run" / "bundles.txt")],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 3
    assert "does not accept the secret; both read every byte" in ended.stderr


@pytest.mark.fault
@pytest.mark.deployment
def test_a_clientapp_that_dies_is_noticed_after_a_minute_and_its_message_sent_again(
    small_study: Path, tmp_path: Path, together: ModuleType
) -> None:
    """With Flower's own executor; the other hospital's answer waits, and the round is complete.

    One that dies before it has fetched its message is simply started again; so this one is killed
    once its custodian has charged the round, and the custodian is held meanwhile.
    """
    together.rewrite(small_study, 4, {"rank = 8": "rank = 1024"})

    def make(pattern: Any) -> Rehearsal:
        return Rehearsal(tmp_path / "traps", PORTS["flower"], "flower", seed=0)

    with together.together(small_study, tmp_path / "alone", make) as running:
        ledger = running.federation.hospital("hospital-1") / "ledger" / "ledger.jsonl"
        before = ledger.stat().st_size
        running.wait_for(lambda: ledger.stat().st_size > before, "a charge", every_s=0.002)
        custodian = running.find("hospital-1", "custodian")
        os.kill(custodian, signal.SIGSTOP)
        reached, began = running.rounds(), time.monotonic()
        killed = running.strike("hospital-1", "clientapp")
        os.kill(custodian, signal.SIGCONT)
        assert killed
        running.wait_for_round(reached + 1)
        assert 20.0 < time.monotonic() - began < 200.0
    running.require_all_is_well()
    assert "sent again" in running.said("coordinator", "serverapp")
    assert "code=8" in running.said("coordinator", "serverapp")
