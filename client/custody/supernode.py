"""Flower's SuperNode, looking for messages sooner, and missed sooner when it has died.

Flower's SuperNode sleeps three seconds between two looks at the SuperLink and half a second between
two for its relay's reply; no option changes that, and it is most of a short round. Run as
``python -m wardround.client.custody.supernode`` with the options of ``flower-supernode``, it sleeps
less: a moment while a reply is awaited, and between messages an eighth of the time since the last
one. So at most an eighth of a round is lost, and a node that waits for hours asks as seldom as
Flower's own. A look that takes long means that many ask: then it sleeps twenty times as long, up to
Flower's three seconds, and leaves the SuperLink to those who have something to send.

A SuperNode says every half minute that it is there, and one that was killed is missed, and let in
again, after a whole one. This one says so as often as a SuperLink allows, and is missed after 20
seconds. Where Flower does not do it in these ways any more, it runs as Flower's own.
"""

from __future__ import annotations

import importlib
import logging
import sys
import time
from collections.abc import Callable
from typing import Any

log = logging.getLogger("wardround.supernode")

REPLY_S = 0.1
SOONEST_S = 0.2
SHARE = 1 / 8
LOOKS = 20  # a pause is at least so many times as long as the look before it
_IDLE_S = 1.0  # Flower sleeps longer than this only when there was no message
_LOOP = "flwr.supernode.start_client_internal"
HEARTBEAT_S = 10  # what flwr.common.constant calls HEARTBEAT_MIN_INTERVAL
_FLOWERS_HEARTBEAT_S = 30
_HEARTBEAT = "HEARTBEAT_DEFAULT_INTERVAL"
_HEARTS = ("flwr.supernode.fleet_http_connection", "flwr.supercore.heartbeat")


class Pace:
    """Stands where a module of Flower's has ``time``, and sleeps less than it is told to."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """A node that has just been started expects its first message soon."""
        self._clock = clock
        self._sleep = sleep
        self._last = self._woke = clock()

    def __getattr__(self, name: str) -> Any:
        """Whatever else ``time`` has."""
        return getattr(time, name)

    def sleep(self, seconds: float) -> None:
        """Sleep ``seconds``, or less; shorter sleeps mean that a message is being answered."""
        now = self._clock()
        if seconds < _IDLE_S:
            self._last = now
            self._sleep(min(seconds, REPLY_S))
        else:
            wanted = max(SOONEST_S, (now - self._last) * SHARE, (now - self._woke) * LOOKS)
            self._sleep(min(seconds, wanted))
        self._woke = self._clock()


def quicken(pace: Pace) -> bool:
    """Give Flower's loop this pace; False, and nothing is changed, where it does not fit."""
    loop: Any = importlib.import_module(_LOOP)
    if getattr(loop, "time", None) is not time:
        log.warning("%s sleeps in another way; it runs at its own pace", _LOOP)
        return False
    loop.time = pace
    return True


def beat_faster() -> bool:
    """Say every 10 seconds at least that this node is there; False where Flower has changed."""
    hearts: list[Any] = [importlib.import_module(name) for name in _HEARTS]
    if any(getattr(heart, _HEARTBEAT, None) != _FLOWERS_HEARTBEAT_S for heart in hearts):
        log.warning("%s is another; it stays as it is", _HEARTBEAT)
        return False
    for heart in hearts:
        setattr(heart, _HEARTBEAT, HEARTBEAT_S)
    return True


def main() -> None:
    """``flower-supernode`` with the same arguments."""
    quicken(Pace())
    beat_faster()
    sys.argv[0] = "flower-supernode"
    program: Any = importlib.import_module("flwr.supernode.cli.flower_supernode")
    program.flower_supernode()


if __name__ == "__main__":
    main()
