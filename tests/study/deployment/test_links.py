"""A federation over an internet whose links are cut, slow, lossy; and restarts of its processes."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from wardround.study.deployment.rehearsal import Ports, Rehearsal

PORTS = Ports(23_300)
CUT_S = 20.0
KINDS = (
    ("hospital-1", "custodian"),
    ("hospital-2", "relay"),
    ("hospital-3", "supernode"),
    ("coordinator", "fleet-proxy"),
    ("coordinator", "superexec"),
    ("coordinator", "superlink"),
)


@pytest.mark.fault
@pytest.mark.deployment
def test_cut_slow_and_lossy_links_and_restarts_change_nothing_of_what_is_learnt(
    small_study: Path,
    open_folder: Path,
    internet: Callable[..., Any],
    together: ModuleType,
    tmp_path: Path,
) -> None:
    """300 ms each way and 5 % of packets lost each way, as packets; every round is complete."""
    together.rewrite(small_study, 16, {"count = 2": "count = 3"})
    nets: list[Any] = []

    def make(pattern: Any) -> Rehearsal:
        nets.append(internet(*pattern.facts.hospitals))
        root, net = open_folder / "links", nets[0]
        return Rehearsal(root, PORTS, seed=0, around=net.around, host=net.address, patience_s=60.0)

    with together.together(small_study, tmp_path / "alone", make) as running:
        first, second, third = (nets[0].wires[name] for name in running.names)
        before = first.carried
        running.wait_for(lambda: first.carried > before + 10, "packets of a round")
        first.cut, reached = True, running.rounds()
        running.pause(CUT_S)
        assert first.lost > 0
        assert running.rounds() <= reached + 1  # a round that had all its answers may end
        first.cut = False
        running.wait_for_round(reached + 2)
        second.delay_s, third.loss = 0.3, 0.05
        running.wait_for_round(reached + 4)
        second.loss, third.delay_s = 0.05, 0.3
        running.wait_for_round(reached + 5)
        for wire in (second, third):
            wire.delay_s, wire.loss = 0.0, 0.0
        for where, kind in KINDS:
            at = running.rounds()
            assert running.strike(where, kind, signal.SIGTERM), kind
            running.wait_for_round(at + 1)
    running.require_all_is_well()
    assert third.lost > 0
