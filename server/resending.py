"""A grid that asks again: Flower delivers a message once and never retries.

A message is sent again when its node answers with an error that says nothing about the message
(the app raised, because its custodian was away; the app's process died), or not at all, as a node
whose executor died. A node that went offline is asked again when it is back, as it is in a minute
or two when its process was killed and started again; one that stays away is not waited for a second
time until it was seen online. A custodian answers the same request with the same bytes and charges
once, so asking again costs nothing. Knows nothing of what is asked.

Source: Flower 1.41's ``ErrorCode``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

log = logging.getLogger("wardround.grid")

TIMES = 2
PATIENCE_S = 600.0
ABSENCE_S = 180.0
POLL_S = 0.25
_LOOK_S = 1.0  # between two looks for a node that is away
# CLIENT_APP_RAISED_EXCEPTION, CLIENT_APP_CRASHED
PASSING = frozenset({2, 8})
AWAY = 5  # NODE_UNAVAILABLE


@dataclass
class _Sent:
    """A message that waits for its answer.

    Attributes:
        message: As it was sent.
        copies: Flower's ids of the copies that may still be answered; the newest is last.
        since: When the newest was sent, in seconds.
        again: How often it was sent again to a node that was there.
        away: The error that said its node is offline, while that is waited for.
        away_since: When the node was first found offline with this message, in seconds.
    """

    message: Message
    copies: list[str]
    since: float
    again: int = 0
    away: Message | None = None
    away_since: float | None = None

    @property
    def node(self) -> int:
        """Where it goes."""
        return int(self.message.metadata.dst_node_id)


class ResendingGrid(Grid):
    """Another grid, on which a message is sent again, a few times, before its failure is shown."""

    def __init__(
        self,
        grid: Grid,
        patience_s: float = PATIENCE_S,
        times: int = TIMES,
        absence_s: float = ABSENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Send over ``grid``.

        Args:
            grid: Delivers each message once.
            patience_s: A message that nobody has answered for so long is sent again.
            times: How often a message is sent again to a node that is there.
            absence_s: How long a message waits in all for its node to come back.
            clock: Seconds.
        """
        self._grid = grid
        self._patience_s = patience_s
        self._times = times
        self._absence_s = absence_s
        self._clock = clock
        self._sent: dict[str, _Sent] = {}
        self._given_up: set[int] = set()
        self._online: set[int] = set()
        self._looked_at = -_LOOK_S

    def set_run(self, run: Run) -> None:
        """Set the run."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run."""
        return self._grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """A message of the current API."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Every node that is online."""
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send; returns ids in the same order, which stay good when a message is sent again."""
        sent, now = list(messages), self._clock()
        ids = list(self._grid.push_messages(sent))
        self._sent |= {i: _Sent(message, [i], now) for i, message in zip(ids, sent, strict=True)}
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies that are there; an error only when its message is not sent again."""
        return [reply for i in message_ids if (reply := self._pull(i)) is not None]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push, then pull until every message is answered or ``timeout`` seconds have passed."""
        ends = None if timeout is None else self._clock() + timeout
        waiting, found = list(self.push_messages(messages)), []
        while waiting and (ends is None or self._clock() < ends):
            for identifier in list(waiting):
                for reply in self.pull_messages([identifier]):
                    waiting.remove(identifier)
                    found.append(reply)
            if waiting:
                time.sleep(POLL_S)
        return found

    def _pull(self, identifier: str) -> Message | None:
        """The reply to any copy of a message."""
        sent = self._sent.get(identifier)
        if sent is None:
            return None
        for copy in list(sent.copies):
            for reply in self._grid.pull_messages([copy]):
                sent.copies.remove(copy)
                if not reply.has_error():
                    self._given_up.discard(sent.node)
                    return self._show(identifier, reply)
                if (shown := self._failed(sent, reply)) is not None:
                    return self._show(identifier, shown)
        if sent.away is not None and not sent.copies:
            if (shown := self._wait_for(sent, sent.away)) is not None:
                return self._show(identifier, shown)
        elif sent.again < self._times and self._clock() - sent.since >= self._patience_s:
            sent.again += 1
            self._send_again(sent, "silent")
        return None

    def _show(self, identifier: str, reply: Message) -> Message:
        del self._sent[identifier]
        return reply

    def _failed(self, sent: _Sent, reply: Message) -> Message | None:
        """The error when there is nothing left to hope for."""
        code = reply.error.code
        if code == AWAY:
            sent.away = reply
            self._online.discard(sent.node)
            return None
        if code not in PASSING or (sent.again >= self._times and not sent.copies):
            return reply
        if not sent.copies:
            sent.again += 1
            self._send_again(sent, f"code={code}")
        return None

    def _wait_for(self, sent: _Sent, error: Message) -> Message | None:
        """Send again once its node is back; the error when it was away too long."""
        now = self._clock()
        if sent.away_since is None:
            sent.away_since = now
        if now - self._looked_at >= _LOOK_S:
            self._online, self._looked_at = set(self._grid.get_node_ids()), now
            self._given_up -= self._online
        if sent.node in self._online:
            self._send_again(sent, "back")
        elif sent.node in self._given_up or now - sent.away_since >= self._absence_s:
            self._given_up.add(sent.node)
            return error
        return None

    def _send_again(self, sent: _Sent, why: str) -> None:
        """Send a copy; its group, which is the round, stays."""
        metadata = sent.message.metadata
        copy = Message(
            sent.message.content,
            metadata.dst_node_id,
            metadata.message_type,
            group_id=metadata.group_id,
        )
        sent.copies.extend(self._grid.push_messages([copy]))
        sent.away = None
        sent.since = self._clock()
        log.warning("sent again node=%d %s", metadata.dst_node_id, why)
