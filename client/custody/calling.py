"""Calls a custodian in another process; to the relay it looks like one at hand.

Every call may be repeated: a custodian answers the same request with the same bytes and charges
once. So a call that is cut off, as by a custodian that was killed, is made again, and one that
finds nobody waits until somebody is there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from wardround.client.custody.place import Place
from wardround.client.custody.wire import MOST_BYTES, SERVICE, read_parts, to_chunks
from wardround.privacy.errors import BadInput, BadMessage, UntrustedPeer, WardroundError

DEADLINE_S = 3600.0
_CUT_OFF = 2  # times a call is made again after it was cut off


class CustodianUnreachable(WardroundError):
    """Nobody answered in time; the same request can be sent again at no cost."""


class CustodianFailed(WardroundError):
    """The custodian met an error that is in its own log; nothing was answered."""


class RemoteCustodian:
    """The custodian that answers at a place; a ``CustodianService``."""

    def __init__(
        self,
        place: Place,
        deadline_s: float = DEADLINE_S,
        most_bytes: int = MOST_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Connects when first asked.

        Args:
            place: Where it answers.
            deadline_s: How long a call may take, waiting for the custodian included.
            most_bytes: A longer reply is not taken.
            clock: Seconds.
        """
        if deadline_s <= 0:
            raise BadInput(f"deadline_s is {deadline_s}; it must be above 0")
        self._channel: Any = place.channel()
        self._deadline_s = deadline_s
        self._most_bytes = most_bytes
        self._clock = clock

    def __enter__(self) -> Self:
        """The custodian itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Disconnect."""
        self.close()

    def close(self) -> None:
        """Disconnect; a running call is cut off."""
        self._channel.close()

    def declare(self) -> bytes:
        """A signed declaration."""
        return self._call("declare")

    def train(self, sealed_plan: bytes, arrays_block: bytes) -> bytes:
        """A signed update or a signed refusal."""
        return self._call("train", sealed_plan, arrays_block)

    def secure_sum(self, sealed_request: bytes, arrays_block: bytes) -> bytes:
        """A signed answer to one stage of a secure sum, or a signed refusal."""
        return self._call("secure_sum", sealed_request, arrays_block)

    def ready(self, within_s: float) -> bool:
        """Whether it takes calls, or does so within this many seconds."""
        stub = health_pb2_grpc.HealthStub(self._channel)
        request = health_pb2.HealthCheckRequest(service=SERVICE)
        try:
            found = stub.Check(request, timeout=within_s, wait_for_ready=True)
        except grpc.RpcError:
            return False
        return bool(found.status == health_pb2.HealthCheckResponse.SERVING)

    def _call(self, name: str, *parts: bytes) -> bytes:
        """One reply.

        Raises:
            CustodianUnreachable: Nobody answered before the deadline.
            CustodianFailed: It met an error of its own.
            BadMessage: It could not read the request, or the reply is not one.
            UntrustedPeer: It does not take calls from here.
        """
        method = self._channel.stream_stream(f"/{SERVICE}/{name}")
        ends = self._clock() + self._deadline_s
        cut_off = 0
        while True:
            left = max(ends - self._clock(), 0.0)
            try:
                chunks = method(to_chunks(*parts), timeout=left, wait_for_ready=True)
                (reply,) = read_parts(chunks, 1, self._most_bytes)
                return reply
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE or cut_off == _CUT_OFF:
                    raise _typed(name, error) from error
                cut_off += 1


def _typed(name: str, error: Any) -> WardroundError:
    """The error a relay can act on."""
    code, says = error.code(), f"custodian {name}: {error.details()}"
    kinds: dict[Any, type[WardroundError]] = {
        grpc.StatusCode.UNAVAILABLE: CustodianUnreachable,
        grpc.StatusCode.DEADLINE_EXCEEDED: CustodianUnreachable,
        grpc.StatusCode.RESOURCE_EXHAUSTED: CustodianUnreachable,
        grpc.StatusCode.CANCELLED: CustodianUnreachable,
        grpc.StatusCode.INVALID_ARGUMENT: BadMessage,
        grpc.StatusCode.PERMISSION_DENIED: UntrustedPeer,
    }
    return kinds.get(code, CustodianFailed)(says)
