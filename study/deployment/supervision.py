"""Keeps a handful of processes alive, in order; the logic, without any process.

A service starts when those it comes after are ready, is started again with a growing pause when it
ends, and may take others with it: a SuperNode whose executor died waits for an answer for ever and
has to go too. Clock, pause and processes are given.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

log = logging.getLogger("wardround.supervisor")

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 10.0
_STEADY_S = 60.0  # after so long a service counts as well again
_POLL_S = 0.1


class Process(Protocol):
    """A started process."""

    def poll(self) -> int | None:
        """Exit code, or None while it runs."""

    def terminate(self) -> None:
        """Ask it to stop."""

    def kill(self) -> None:
        """Stop it."""


@dataclass(frozen=True)
class Service:
    """One process to keep alive.

    Attributes:
        name: Unique among the services of a supervisor.
        command: Program and arguments; never a secret, other users may see them.
        environment: Set beside what every service gets.
        after: Services that must be ready first.
        takes_down: Services that are of no use once this one has ended unasked.
        ready: Whether it can be used now.
        on_ready: Called once after each start, when it is ready.
        stop_s: How long it may take to stop.
        descriptors: Open files of the supervisor that it is handed.
        whole_group: Whether to signal all processes that the command has started, because the
            first of them only waits for the others.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    takes_down: tuple[str, ...] = ()
    ready: Callable[[], bool] = lambda: True
    on_ready: Callable[[], None] = lambda: None
    stop_s: float = 15.0
    descriptors: tuple[int, ...] = ()
    whole_group: bool = False


@dataclass
class _State:
    """What became of a service so far."""

    process: Process | None = None
    ready: bool = False
    started_at: float = 0.0
    start_at: float = 0.0
    failures: int = 0
    asked_to_end_at: float | None = None


class Supervisor:
    """Runs services until it is told to stop."""

    def __init__(
        self,
        services: Sequence[Service],
        start: Callable[[Service], Process],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Nothing is started yet; an order that cannot be followed is an error."""
        self._services = {service.name: service for service in services}
        self._start = start
        self._clock = clock
        self._sleep = sleep
        self._states = {name: _State() for name in self._services}
        self._stopping = False
        seen: set[str] = set()
        for service in services:
            if not set(service.after) <= seen:
                raise ValueError(f"{service.name} comes after {service.after}, seen {seen}")
            seen.add(service.name)

    @property
    def all_ready(self) -> bool:
        """Whether every service can be used."""
        return all(state.ready for state in self._states.values())

    @property
    def standing(self) -> dict[str, bool]:
        """By service, whether it is ready; for whoever shows it."""
        return {name: state.ready for name, state in self._states.items()}

    def stop(self) -> None:
        """End ``run`` soon; may be called by a signal."""
        self._stopping = True

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Keep everything alive until ``stop`` or ``until``; then stop all, last first."""
        try:
            while not (self._stopping or until()):
                self.tick()
                self._sleep(_POLL_S)
        finally:
            self.shut_down()

    def tick(self) -> None:
        """Look at every service once."""
        for service in self._services.values():
            state = self._states[service.name]
            if state.process is not None:
                self._watch(service, state, state.process)
            elif self._clock() >= state.start_at and self._may_start(service):
                self._launch(service, state)

    def shut_down(self) -> None:
        """Stop everything, those that came last first."""
        for service in reversed(self._services.values()):
            state = self._states[service.name]
            process, state.process, state.ready = state.process, None, False
            if process is None:
                continue
            process.terminate()
            deadline = self._clock() + service.stop_s
            while process.poll() is None and self._clock() < deadline:
                self._sleep(_POLL_S)
            if process.poll() is None:
                log.warning("killing service=%s after=%g", service.name, service.stop_s)
                process.kill()

    def _may_start(self, service: Service) -> bool:
        return all(self._states[name].ready for name in service.after)

    def _launch(self, service: Service, state: _State) -> None:
        log.info("starting service=%s attempt=%d", service.name, state.failures + 1)
        state.process = self._start(service)
        state.started_at, state.ready, state.asked_to_end_at = self._clock(), False, None

    def _watch(self, service: Service, state: _State, process: Process) -> None:
        code = process.poll()
        if code is not None:
            self._ended(service, state, code)
        elif state.asked_to_end_at is not None:
            if self._clock() - state.asked_to_end_at >= service.stop_s:
                log.warning("killing service=%s after=%g", service.name, service.stop_s)
                process.kill()
        elif not state.ready and service.ready():
            service.on_ready()
            state.ready = True
            log.info("ready service=%s", service.name)

    def _ended(self, service: Service, state: _State, code: int) -> None:
        state.process, state.ready = None, False
        asked = state.asked_to_end_at is not None
        if self._clock() - state.started_at >= _STEADY_S:
            state.failures = 0
        pause = 0.0 if asked else min(_FIRST_PAUSE_S * 2**state.failures, _LONGEST_PAUSE_S)
        state.failures += not asked
        state.start_at = self._clock() + pause
        log.warning("ended service=%s code=%d again_in=%g", service.name, code, pause)
        if not asked:
            for name in service.takes_down:
                self._take_down(name, service.name)

    def _take_down(self, name: str, because: str) -> None:
        state = self._states[name]
        if state.process is not None and state.asked_to_end_at is None:
            log.warning("restarting service=%s because=%s", name, because)
            state.asked_to_end_at, state.ready = self._clock(), False
            state.process.terminate()
