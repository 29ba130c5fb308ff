"""Requests that are out and answers as they arrive, over a Flower grid.

An answer counts when an enrolled hospital signed it. What has not come back may be waited for in a
later round. Knows nothing of what is asked or answered, nor of how answers are combined.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

from wardround.privacy.envelope import SIGNATURE_BYTES, open_bytes
from wardround.privacy.errors import BadMessage, UntrustedPeer
from wardround.strategies.codec import StoredArrays, open_block
from wardround.strategies.wire import read_reply

log = logging.getLogger("wardround.coordinator")


@dataclass(frozen=True)
class Arrival:
    """One answer whose signature holds.

    Attributes:
        node: Where it came from.
        header: What it says, with its size under ``bytes``.
        arrays: What it carries.
    """

    node: int
    header: Mapping[str, Any]
    arrays: StoredArrays


@dataclass
class Exchange:
    """Sends, waits and verifies.

    Attributes:
        grid: Carries the messages.
        members: Public key of every enrolled hospital, by name.
        timeout_s: How long an answer is waited for.
        poll_s: Pause between two looks for answers.
        clock: Seconds.
        sleep: Waits.
    """

    grid: Grid
    members: Mapping[str, str]
    timeout_s: float
    poll_s: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _waiting: dict[str, tuple[int, float]] = field(default_factory=dict)

    @property
    def busy(self) -> set[int]:
        """Nodes whose answer is still waited for."""
        return {node for node, _ in self._waiting.values()}

    def send(self, messages: Mapping[int, Message]) -> None:
        """Send one message to each node."""
        deadline = self.clock() + self.timeout_s
        identifiers = self.grid.push_messages(list(messages.values()))
        for identifier, node in zip(identifiers, messages, strict=True):
            self._waiting[identifier] = node, deadline

    def forget(self) -> None:
        """Wait for nothing any more."""
        self._waiting.clear()

    def arrivals(self, enough: Callable[[], bool] = lambda: False) -> Iterator[Arrival]:
        """Verified answers as they arrive, until all are there, late, or enough."""
        for node, sealed in self.answers(enough):
            opened = self.open_reply(sealed)
            del sealed  # decoding needs its own copy of the bytes, and no other
            if opened is not None:
                yield Arrival(node, *opened)

    def answers(self, enough: Callable[[], bool] = lambda: False) -> Iterator[tuple[int, bytes]]:
        """Nodes and what they answered, unread, until all are there, late, or enough.

        They are fetched one at a time: a grid asked for all of them hands over everything that has
        come, and memory would grow with the number of hospitals.
        """
        while self._waiting and not enough():
            arrived = False
            for identifier in list(self._waiting):
                node, deadline = self._waiting[identifier]
                if self.clock() >= deadline:
                    del self._waiting[identifier]
                    continue
                for reply in self.grid.pull_messages([identifier]):
                    arrived = True
                    self._waiting.pop(identifier, None)
                    yield from ((node, answer) for answer in _contents(reply))
                if enough():
                    return
            if self._waiting and not arrived:
                self.sleep(self.poll_s)

    def open_reply(self, sealed: bytes) -> tuple[dict[str, Any], StoredArrays] | None:
        """Header and arrays of an answer signed by the enrolled hospital it names, else None."""
        try:
            # Who signed is in the payload; nothing else in it counts before the signature does.
            header, arrays = open_block(sealed[SIGNATURE_BYTES:], "reply")
            public = self.members.get(str(header.get("hospital")))
            if public is None:
                raise UntrustedPeer(f"hospital {header.get('hospital')!r} is not enrolled")
            open_bytes(sealed, public, "reply")
        except (BadMessage, UntrustedPeer) as error:
            log.warning("turned away reason=%(reason)s", {"reason": str(error)})
            return None
        return header | {"bytes": len(sealed)}, arrays


def _contents(reply: Message) -> Iterator[bytes]:
    """What a hospital answered; nothing where the message brings an error or no answer."""
    if reply.has_error():
        return
    try:
        yield read_reply(reply.content)
    except BadMessage as error:
        log.warning("turned away reason=%(reason)s", {"reason": str(error)})
