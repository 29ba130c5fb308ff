"""The one way out of a relay's network: carries bytes between a socket in it and the SuperNode.

``python -m wardround.study.deployment.passage DESCRIPTOR HOST PORT``: the descriptor is a listening
socket of the relay's network namespace, host and port are the SuperNode's in this one. What is
carried is encrypted between the two ends and not looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys

_CHUNK = 1 << 16


async def carry(listener: socket.socket, host: str, port: int) -> None:
    """Connect everybody who connects to ``listener`` with ``host``:``port``, until SIGTERM."""

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pour(reader, back), _pour(there, writer))

    server = await asyncio.start_server(accepted, sock=listener)
    serving = asyncio.ensure_future(server.serve_forever())
    # The first process of a PID namespace is not ended by a signal that it does not handle.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await serving


async def _pour(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Everything from ``source`` to ``sink``; either end's going ends both."""
    with contextlib.suppress(OSError):
        while chunk := await source.read(_CHUNK):
            sink.write(chunk)
            await sink.drain()
    sink.close()


if __name__ == "__main__":
    descriptor, to, at = sys.argv[1:]
    asyncio.run(carry(socket.socket(fileno=int(descriptor)), to, int(at)))
