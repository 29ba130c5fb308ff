"""The coordinator's memory does not grow with the number of hospitals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).with_name("memory_worker.py")
ADAPTER_BYTES = 4 * 2**20


@pytest.mark.slow
def test_memory_is_flat_in_the_number_of_hospitals() -> None:
    """From 16 to 256 hospitals with an adapter of 4 MiB, at most 3 adapters more.

    The worker gives freed memory back at once (a fixed mmap threshold), so that what is resident is
    what is held. Two broken twins with 32 hospitals, one that keeps updates and one that fetches
    all answers before it looks at any, must each be seen to hold at least 20 adapters.
    """
    jobs = [[16, "plain"], [256, "plain"], [32, "hoarder"], [32, "greedy"]]
    worker = subprocess.run(
        [sys.executable, str(WORKER)],
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"},
    )
    assert worker.returncode == 0, worker.stderr
    few, many, hoarder, greedy = json.loads(worker.stdout)
    assert many - few <= 3 * ADAPTER_BYTES, (few, many)
    assert hoarder >= 20 * ADAPTER_BYTES
    assert greedy >= 20 * ADAPTER_BYTES
