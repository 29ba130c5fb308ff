"""A federation over an internet of its own while its processes are killed at random points.

Every kind of process, at both ends, several at once; what is killed and when is drawn from a seed.
``WARDROUND_KILLS`` says how many (50), ``WARDROUND_KILLS_SEED`` which.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from wardround.study.deployment.rehearsal import Ports, Rehearsal

KILLS = int(os.environ.get("WARDROUND_KILLS", "50"))
SEED = os.environ.get("WARDROUND_KILLS_SEED", "0")
PORTS = Ports(23_200)
AT_ONCE = 3
ROUND_S = 4.0
AT_COORDINATOR = ("superlink", "superexec", "serverapp")
AT_HOSPITAL = ("custodian", "supernode", "relay")


def drawn(*about: object) -> float:
    """A number in [0, 1) that follows from the seed."""
    digest = hashlib.sha256("/".join(map(str, (SEED, *about))).encode()).digest()
    return int.from_bytes(digest[:6]) / 2**48


def one_of(among: tuple[str, ...], *about: object) -> str:
    return among[int(drawn(*about) * len(among))]


def kill(running: Any, count: int) -> list[tuple[str, str]]:
    """One to three processes at a random point after each new round; until so many are dead."""
    killed: list[tuple[str, str]] = []
    batch = 0
    while len(killed) < count and running.going:
        reached = running.rounds()
        running.pause(drawn("when", batch) * ROUND_S)
        for number in range(1 + int(drawn("size", batch) * AT_ONCE)):
            kind = one_of(AT_COORDINATOR + AT_HOSPITAL, "kind", batch, number)
            where = "coordinator"
            if kind in AT_HOSPITAL:
                where = one_of(running.names, "where", batch, number)
            if running.strike(where, kind):  # not there: it is being started again
                killed.append((where, kind))
        said = f"a round after {reached}, {killed[-AT_ONCE:]} killed"
        running.wait_for(lambda at=reached: running.rounds() > at, said)
        batch += 1
    return killed


@pytest.mark.fault
@pytest.mark.deployment
def test_a_study_whose_processes_are_killed_ends_as_if_none_had_been(
    small_study: Path,
    open_folder: Path,
    internet: Callable[..., Any],
    together: ModuleType,
    tmp_path: Path,
) -> None:
    """Rounds, charges and the adapter, byte for byte, are those of a run in one process."""
    together.rewrite(small_study, KILLS + 5, {"count = 2": "count = 3"})

    def make(pattern: Any) -> Rehearsal:
        net = internet(*pattern.facts.hospitals)
        root = open_folder / "kills"
        return Rehearsal(root, PORTS, seed=0, around=net.around, host=net.address, patience_s=60.0)

    began = time.monotonic()
    with together.together(small_study, tmp_path / "alone", make) as running:
        killed = kill(running, KILLS)
    kinds = Counter(kind for _, kind in killed)
    minutes = (time.monotonic() - began) / 60
    print(f"kills={len(killed)} {dict(kinds)} rounds={KILLS + 5} minutes={minutes:.1f}")
    assert len(killed) >= KILLS
    running.require_all_is_well()
