"""What ``bench deployment`` and ``bench load`` make of the times and sizes they took."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from wardround.privacy.errors import BadInput
from wardround.study.bench.deployment import Timed, deployment_benchmark
from wardround.study.bench.load import Memory, load_benchmark


def say(line: str) -> None:
    raise AssertionError(f"began: {line}")


def test_the_first_and_the_last_round_do_not_count() -> None:
    """Rounds of 9, 4, 5, 6 and 30 s with 3, 1, 1, 3 and 9 s of work, from second 20 on."""
    timed = Timed(
        began=0.0,
        provisioned=2.0,
        up=12.0,
        first_round=20.0,
        ends=[29.0, 33.0, 38.0, 44.0, 74.0],
        works=[3.0, 1.0, 1.0, 3.0, 9.0],
    )
    assert timed.document() == {
        "overhead_s": 3.0,
        "least_overhead_s": 3.0,
        "most_overhead_s": 4.0,
        "round_s": 5.0,
        "work_s": 1.0,
        "rounds_timed": 3,
        "provision_s": 2.0,
        "up_s": 10.0,
        "first_round_begins_s": 20.0,
        "first_round_ends_s": 29.0,
    }


def test_memory_counts_a_process_and_what_it_started() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        alone, both = Memory().sample(child.pid), Memory().sample(os.getpid())
    finally:
        child.communicate(b"\n")
    assert sum(both.values()) > sum(alone.values()) > 0


@pytest.mark.parametrize(
    ("rounds", "update", "says"), [(3, "demo", "--rounds is 3"), (4, "huge", "--update is 'huge'")]
)
def test_what_cannot_be_measured_is_refused_first(rounds: int, update: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        deployment_benchmark(rounds, update, 22_000, say)


def test_too_many_relays_are_refused() -> None:
    with pytest.raises(BadInput, match="--relays is 251"):
        load_benchmark(251, 3, "demo", 22_000, say)
