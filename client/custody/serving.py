"""Serves a custodian to its relay: calls one at a time, health beside them, a stop without loss.

A call whose caller has gone before its turn came is not begun. What was begun goes on when its
caller disappears: it has been charged, and the same request will find its answer stored. Knows
nothing of what is asked.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from wardround.client.custody.place import Place, server_options
from wardround.client.custody.wire import MOST_BYTES, PARTS, SERVICE, read_parts, to_chunks
from wardround.client.relay import CustodianService
from wardround.privacy.errors import BadMessage

log = logging.getLogger("wardround.custodian")

_THREADS = 8  # one works; the others read requests, wait, or say that all is well
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class CustodianServer:
    """One custodian behind a socket."""

    def __init__(
        self, custodian: CustodianService, place: Place, most_bytes: int = MOST_BYTES
    ) -> None:
        """Listen at ``place`` and answer from now on; requests are at most ``most_bytes`` long.

        Raises:
            BadInput: Nobody can listen there.
        """
        self._custodian = custodian
        self._place = place
        self._most_bytes = most_bytes
        self._turn = threading.Lock()
        self._stopping = threading.Event()
        self._health = health.HealthServicer(experimental_non_blocking=True)
        self._server = grpc.server(
            ThreadPoolExecutor(_THREADS, thread_name_prefix="custodian"),
            options=server_options(),
            maximum_concurrent_rpcs=_THREADS,
        )
        methods = {name: self._method(name) for name in PARTS}
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, methods),)
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        place.bind(self._server)
        self._server.start()
        self._health.set("", _SERVING)
        self._health.set(SERVICE, _SERVING)

    def stop(self, grace_s: float) -> bool:
        """Take no more calls and give the running one ``grace_s`` seconds to end.

        Returns:
            Whether it has ended. If not, the process had better end without touching the ledger,
            which is as safe against that as against a power cut.
        """
        self._stopping.set()
        self._health.set(SERVICE, _NOT_SERVING)
        self._server.stop(grace_s).wait()
        if not self._turn.acquire(timeout=0):
            return False
        self._turn.release()
        return True

    def _method(self, name: str) -> Any:
        call: Callable[..., bytes] = getattr(self._custodian, name)

        def answer(chunks: Iterator[bytes], context: Any) -> Iterator[bytes]:
            if not self._place.admits(context):
                log.warning("turned away a caller whose certificate names no relay of ours")
                context.abort(grpc.StatusCode.PERMISSION_DENIED, "not a relay of this custodian")
            try:
                parts = read_parts(chunks, PARTS[name], self._most_bytes)
            except BadMessage as error:
                log.warning("turned away call=%s reason=%s", name, error)
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{name}: {error}")
            yield from to_chunks(self._take_turn(name, call, parts, context))

        return grpc.stream_stream_rpc_method_handler(answer)

    def _take_turn(
        self, name: str, call: Callable[..., bytes], parts: list[bytes], context: Any
    ) -> bytes:
        """What the custodian answers, once those before have been answered."""
        with self._turn:
            if self._stopping.is_set() or not context.is_active():
                context.abort(grpc.StatusCode.UNAVAILABLE, "the custodian is stopping")
            started = time.monotonic()
            try:
                reply = call(*parts)
            except Exception:
                log.exception("call=%s failed", name)
            else:
                took = {"call": name, "seconds": time.monotonic() - started}
                log.info("answered call=%(call)s seconds=%(seconds).3f", took)
                return reply
        context.abort(grpc.StatusCode.INTERNAL, f"{name}: it failed; the custodian's log says why")
        raise AssertionError("abort raises")
