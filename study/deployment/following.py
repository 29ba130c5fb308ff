"""Follows a run to its end, and hands it over again when SuperLink or executor lost it.

A SuperLink that was killed and started again has forgotten its runs; a ServerApp that was killed
leaves one that has failed. The run folder has the last checkpoint either way, and a run goes on
from there. One that fails again and again without coming further has failed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from wardround.privacy.errors import WardroundError
from wardround.strategies.checkpoint import saved_rounds
from wardround.study.deployment.coordinator import UNKNOWN
from wardround.study.run_folder import RunFolder

log = logging.getLogger("wardround.follower")

IN_VAIN = 3  # failures in a row that bring no new checkpoint
# Asking the SuperLink costs a second of processor time, so it is late by a share of a quiet time.
_SOONEST_LOOK_S = 10.0
_LATEST_LOOK_S = 60.0
_LOOK_SHARE = 1 / 8
_POLL_S = 0.5
_UNREACHABLE = "unreachable"


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Attributes:
        round: Of the last checkpoint; -1 before the first.
        published: When its report was written; 0 before.
    """

    round: int
    published: int

    @classmethod
    def of(cls, folder: RunFolder) -> Progress:
        """As the run's folder shows it."""
        rounds = [path.stem.rpartition("-")[2] for path in saved_rounds(folder.path / "checkpoint")]
        page = folder.path / "report.html"
        written = page.stat().st_mtime_ns if page.exists() else 0
        return cls(max(map(int, rounds), default=-1), written)


def follow(
    start: Callable[[], str],
    status: Callable[[str], str],
    progress: Callable[[], Progress],
    refused: Callable[[], str],
    timeout_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Start a run and return when it is completed.

    Args:
        start: Hands the run to the SuperLink; its identifier there.
        status: How a run stands there; ``WardroundError`` when nobody can be reached.
        progress: How far it has come.
        refused: Why the hospitals refused a round, since this began; asking again changes nothing.
        timeout_s: How long to follow.
        clock: Seconds.
        sleep: Waits.

    Raises:
        WardroundError: It cannot be started, was stopped, was refused, fails without coming
            further, or time is up.
    """
    ends, seen, in_vain = clock() + timeout_s, progress(), 0
    identifier, newest, since = start(), seen, clock()
    while True:
        pause = min(max((clock() - since) * _LOOK_SHARE, _SOONEST_LOOK_S), _LATEST_LOOK_S)
        _wait_for_news(progress, min(clock() + pause, ends), clock, sleep)
        if progress() != newest:
            newest, since = progress(), clock()
        said = _or_unreachable(status, identifier)
        if said == "finished:completed":
            return
        if said == "finished:stopped":
            raise WardroundError(f"run {identifier} was stopped")
        if said.startswith("finished"):
            if why := refused():
                raise WardroundError(f"run {identifier}: {said}: {why}")
            now = progress()
            in_vain = 1 if now != seen else in_vain + 1
            seen = now
            if in_vain == IN_VAIN:
                raise WardroundError(
                    f"run {identifier}: {said}, again; serverapp.log in its folder says why"
                )
        if said.startswith("finished") or said == UNKNOWN:
            log.warning("starting the run again identifier=%s status=%s", identifier, said)
            again = _or_unreachable(lambda _: start(), identifier)
            identifier = identifier if again == _UNREACHABLE else again
            since = clock()
        if clock() >= ends:
            raise WardroundError(f"run {identifier}: still {said} after {timeout_s:g} s")


def _or_unreachable(ask: Callable[[str], str], identifier: str) -> str:
    """What the SuperLink says, if it can be asked."""
    try:
        return ask(identifier)
    except WardroundError as error:
        log.info("the SuperLink was not reached reason=%s", str(error).split("\n", 1)[0])
        return _UNREACHABLE


def _wait_for_news(
    progress: Callable[[], Progress],
    until: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> None:
    """Pause, less when the run has just been published."""
    before = progress().published
    while clock() < until and progress().published == before:
        sleep(_POLL_S)
