"""Supervisors with a fake clock and fake processes: order, back-off, who goes down with whom."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from wardround.study.deployment.supervision import Service, Supervisor


@dataclass
class Fake:
    """A process that ends when it is told to, by the test or by its supervisor."""

    code: int | None = None
    deaf: bool = False
    killed: bool = False

    def poll(self) -> int | None:
        return self.code

    def terminate(self) -> None:
        if not self.deaf:
            self.code = 0 if self.code is None else self.code

    def kill(self) -> None:
        self.killed, self.code = True, -9


@dataclass
class World:
    """Seconds that pass when somebody sleeps, and every process that was started."""

    now: float = 0.0
    started: list[tuple[float, str]] = field(default_factory=list)
    running: dict[str, Fake] = field(default_factory=dict)

    def start(self, service: Service) -> Fake:
        self.started.append((self.now, service.name))
        self.running[service.name] = Fake()
        return self.running[service.name]

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def supervise(self, *services: Service) -> Supervisor:
        return Supervisor(services, self.start, self.clock, self.sleep)

    def let_pass(self, supervisor: Supervisor, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            supervisor.tick()
            self.sleep(0.1)

    def starts(self, name: str) -> list[float]:
        return [at for at, started in self.started if started == name]


HOSPITAL = (
    Service("custodian", ["c"]),
    Service("supernode", ["s"], after=("custodian",), takes_down=("relay",)),
    Service("relay", ["r"], after=("custodian", "supernode"), takes_down=("supernode",)),
)


def test_starts_in_order_each_when_those_before_are_ready() -> None:
    world, open_at = World(), 5.0
    custodian = Service("custodian", ["c"], ready=lambda: world.now >= open_at)
    supervisor = world.supervise(custodian, *HOSPITAL[1:])
    world.let_pass(supervisor, 4.0)
    assert [name for _, name in world.started] == ["custodian"]
    world.let_pass(supervisor, 2.0)
    assert [name for _, name in world.started] == ["custodian", "supernode", "relay"]
    assert supervisor.all_ready


def test_says_once_a_start_when_a_service_is_ready() -> None:
    world, told = World(), []
    service = Service("superlink", ["s"], on_ready=lambda: told.append(world.now))
    supervisor = world.supervise(service)
    world.let_pass(supervisor, 3.0)
    assert len(told) == 1
    world.running["superlink"].code = -9
    world.let_pass(supervisor, 3.0)
    assert len(told) == 2  # a SuperLink that was restarted has forgotten its nodes


def test_a_dead_executor_takes_its_supernode_along() -> None:
    """A SuperNode whose executor died waits for ever; only a restart frees it."""
    world = World()
    supervisor = world.supervise(*HOSPITAL)
    world.let_pass(supervisor, 1.0)
    world.running["relay"].code = -9
    world.let_pass(supervisor, 3.0)
    assert len(world.starts("supernode")) == 2
    assert len(world.starts("relay")) == 2
    assert len(world.starts("custodian")) == 1  # data, model and ledger are left in peace
    assert supervisor.all_ready


def test_a_supernode_that_will_not_go_down_with_its_relay_is_killed() -> None:
    world = World()
    supervisor = world.supervise(*HOSPITAL)
    world.let_pass(supervisor, 1.0)
    supernode = world.running["supernode"]
    supernode.deaf = True
    world.running["relay"].code = -9
    world.let_pass(supervisor, 10.0)
    assert not supernode.killed
    assert not supervisor.standing["supernode"]
    world.let_pass(supervisor, 10.0)
    assert supernode.killed
    assert len(world.starts("supernode")) == 2
    assert supervisor.all_ready


def test_without_that_rule_the_supernode_would_stay() -> None:
    """The broken twin of the test above."""
    world = World()
    supervisor = world.supervise(*HOSPITAL[:2], Service("relay", ["r"], after=("supernode",)))
    world.let_pass(supervisor, 1.0)
    world.running["relay"].code = -9
    world.let_pass(supervisor, 3.0)
    assert len(world.starts("supernode")) == 1


def test_a_dead_supernode_takes_its_relay_along_and_both_come_back_once() -> None:
    world = World()
    supervisor = world.supervise(*HOSPITAL)
    world.let_pass(supervisor, 1.0)
    world.running["supernode"].code = -9
    world.let_pass(supervisor, 5.0)
    assert [len(world.starts(name)) for name in ("custodian", "supernode", "relay")] == [1, 2, 2]


def test_a_supernode_refused_at_activation_is_tried_until_its_old_session_has_ended() -> None:
    """305/2004: the SuperLink counts it as online until two heartbeats of 30 s have passed."""
    world = World()
    supervisor = world.supervise(Service("supernode", ["s"], ready=lambda: False))
    while world.now < 95.0:
        supervisor.tick()
        if world.now >= world.started[-1][0] + 0.1:
            world.running["supernode"].code = 1
        world.sleep(0.1)
    starts = world.starts("supernode")
    pauses = [later - earlier for earlier, later in pairwise(starts)]
    assert starts[-1] > 80.0
    assert max(pauses) <= 10.5
    assert pauses[0] < 1.0


def test_the_pause_grows_and_starts_afresh_after_a_steady_minute() -> None:
    world = World()
    supervisor = world.supervise(Service("one", ["1"]))
    for _ in range(4):
        world.let_pass(supervisor, 20.0)
        world.running["one"].code = 1
    world.let_pass(supervisor, 70.0)
    died = world.now
    world.running["one"].code = 1
    world.let_pass(supervisor, 2.0)
    assert world.starts("one")[-1] - died == pytest.approx(0.5, abs=0.25)


def test_stops_the_last_first_and_kills_what_does_not_listen() -> None:
    world = World()
    supervisor = world.supervise(*HOSPITAL)
    world.let_pass(supervisor, 1.0)
    world.running["custodian"].deaf = True
    supervisor.stop()
    supervisor.run()
    assert world.running["relay"].code == 0
    assert world.running["supernode"].code == 0
    assert world.running["custodian"].killed
    assert len(world.started) == 3


def test_an_order_that_cannot_be_followed_is_an_error() -> None:
    with pytest.raises(ValueError, match="relay comes after"):
        World().supervise(Service("relay", ["r"], after=("supernode",)))


def test_supervisors_import_no_torch() -> None:
    """It would cost each of them seconds to start and 170 MB to stay."""
    code = (
        "import sys\n"
        "from wardround.study.deployment import coordinator, hospital, supervision, up\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
