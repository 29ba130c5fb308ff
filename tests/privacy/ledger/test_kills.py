"""Real processes, real SIGKILL: what the kernel does, not what a simulated disk does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = 40


@pytest.mark.fault
@pytest.mark.slow
def test_killed_owners_lose_nothing(tmp_path: Path):
    worker = Path(__file__).with_name("kill_worker.py")
    done = subprocess.run(
        [sys.executable, str(worker), str(tmp_path / "ledger"), str(KILLS)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["wrong"] == []
    assert seen["kills"] == KILLS
    assert seen["answered"] > 0
