"""The relay: carries bytes between Flower and the custodian, and can only ask.

It holds no data, imports no torch and reads nothing of what it carries: whatever the coordinator's
wire brings stops here. The same relay code serves the one-process engine, Flower's simulation and
a real SuperNode; only ``connect`` differs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from wardround.strategies.wire import read_request, reply_content


class CustodianService(Protocol):
    """What a relay may ask of a custodian; bytes in, signed bytes out."""

    def declare(self) -> bytes:
        """A signed declaration."""

    def train(self, sealed_plan: bytes, arrays_block: bytes) -> bytes:
        """A signed update or a signed refusal."""

    def secure_sum(self, sealed_request: bytes, arrays_block: bytes) -> bytes:
        """A signed answer to one stage of a secure sum, or a signed refusal."""


Connect = Callable[[Context], CustodianService]


def make_relay(connect: Connect) -> ClientApp:
    """A Flower ClientApp that forwards to the custodian ``connect`` finds for a node."""
    relay = ClientApp()

    @relay.query("declare")
    def declare(message: Message, context: Context) -> Message:
        return _answer(connect(context).declare(), message)

    @relay.train()
    def train(message: Message, context: Context) -> Message:
        plan, arrays = read_request(message.content)
        return _answer(connect(context).train(plan, arrays), message)

    @relay.query("sum")
    def secure_sum(message: Message, context: Context) -> Message:
        request, arrays = read_request(message.content)
        return _answer(connect(context).secure_sum(request, arrays), message)

    return relay


def _answer(reply: bytes, message: Message) -> Message:
    return Message(reply_content(reply), reply_to=message)
