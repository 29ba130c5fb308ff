"""A SuperNode looks for messages soon after the last one and seldom when nothing happens."""

from __future__ import annotations

import time
from typing import Any

import flwr.supercore.heartbeat as heartbeat
import flwr.supernode.fleet_http_connection as connection
import flwr.supernode.start_client_internal as loop
import pytest
from flwr.common.constant import HEARTBEAT_MIN_INTERVAL
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supernode.nodestate import NodeStateFactory

from wardround.client.custody.supernode import (
    HEARTBEAT_S,
    REPLY_S,
    SOONEST_S,
    Pace,
    beat_faster,
    quicken,
)

FLOWERS_OWN_S = 3.0  # start_client_internal.py of flwr 1.41, line 263


class Clock:
    """A clock that sleeping moves on."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_pauses_grow_with_the_time_since_the_last_message() -> None:
    clock = Clock()
    pace = Pace(clock, clock.sleep)
    clock.now += 60
    pace.sleep(FLOWERS_OWN_S)
    pace.sleep(0.5)
    for _ in range(60):
        pace.sleep(FLOWERS_OWN_S)
    first, waiting, *idle = clock.slept
    assert (first, waiting) == (FLOWERS_OWN_S, REPLY_S)
    assert idle[0] == SOONEST_S
    assert idle == sorted(idle)
    assert idle[-1] == FLOWERS_OWN_S
    waits_s = 0.0
    for pause in idle:
        assert pause <= max(SOONEST_S, 1.01 * (waits_s + REPLY_S) / 8)
        waits_s += pause
    assert pace.monotonic is time.monotonic


def test_a_slow_answer_makes_pauses_longer() -> None:
    clock = Clock()
    pace = Pace(clock, clock.sleep)
    for look_s in (0.0, 0.05, 0.1, 1.0):
        clock.now += look_s
        pace.sleep(FLOWERS_OWN_S)
    assert clock.slept == pytest.approx([SOONEST_S, 1.0, 2.0, FLOWERS_OWN_S])


class Stopped(Exception):
    """Ends Flower's loop."""


def test_flowers_loop_sleeps_through_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when Flower sleeps otherwise, or for other times, than the pace knows."""
    asked: list[float] = []

    class Told(Pace):
        def sleep(self, seconds: float) -> None:
            asked.append(seconds)
            raise Stopped

    class Connection:
        def __enter__(self) -> tuple[Any, ...]:
            return (7, *(lambda *_: None for _ in range(7)))

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(loop, "time", time)
    monkeypatch.setattr(loop, "_init_connection", lambda **_: Connection())
    monkeypatch.setattr(loop, "register_signal_handlers", lambda **_: None)
    assert quicken(Told())
    state = NodeStateFactory(ObjectStoreFactory())
    with pytest.raises(Stopped):
        loop.start_client_internal(
            state_factory=state,
            server_address="127.0.0.1:1",
            node_config={},
            insecure=True,
            isolation="process",
        )
    with pytest.raises(Stopped):
        loop._push_messages(state.state(), None, None, None)  # type: ignore[arg-type]
    assert asked == [FLOWERS_OWN_S, 0.5]


def test_another_loop_keeps_its_own_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "time", object())
    there = loop.time
    assert not quicken(Pace())
    assert loop.time is there


def test_beats_as_often_as_a_superlink_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both where the interval is told and where it is kept; 30 s is that of flwr 1.41."""
    for heart in (connection, heartbeat):
        monkeypatch.setattr(heart, "HEARTBEAT_DEFAULT_INTERVAL", 30)
    assert HEARTBEAT_S == HEARTBEAT_MIN_INTERVAL
    assert beat_faster()
    waits: list[float] = []
    sender = heartbeat.HeartbeatSender(lambda: True)

    def wait(seconds: float) -> None:
        waits.append(seconds)
        sender._stop_event.set()

    monkeypatch.setattr(sender._stop_event, "wait", wait)
    sender._run()
    assert 0.0 < waits[0] < HEARTBEAT_S
    source = connection.http_request_response.__wrapped__.__code__  # type: ignore[attr-defined]
    assert "HEARTBEAT_DEFAULT_INTERVAL" in source.co_names


def test_another_heart_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT_DEFAULT_INTERVAL", 15)
    monkeypatch.setattr(connection, "HEARTBEAT_DEFAULT_INTERVAL", 30)
    assert not beat_faster()
    assert connection.HEARTBEAT_DEFAULT_INTERVAL == 30
