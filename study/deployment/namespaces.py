"""A network of its own for a relay: loopback, one port of it, and nothing beyond.

A process in it reaches whatever accepts at that port and no other address, on this machine or
elsewhere. The namespace has no name; it is gone when the last process that holds it is. Linux,
root.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from wardround.privacy.errors import WardroundError

_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_IFF_UP = 0x1
_IFREQ = "16sH22x"  # name and flags in struct ifreq
_WAITING = 16


class IsolationImpossible(WardroundError):
    """Something that isolation needs is missing; nothing was started."""


@dataclass(frozen=True)
class ClosedNetwork:
    """A network namespace, held open by a descriptor.

    Attributes:
        namespace: What ``nsenter --net`` takes, as a descriptor of this process.
        listener: A listening socket, as a descriptor: the one port that answers in it. It may be
            used from any namespace.
    """

    namespace: int
    listener: int

    @property
    def path(self) -> str:
        """The namespace as a file that other processes of the same user can open."""
        return f"/proc/{os.getpid()}/fd/{self.namespace}"


def closed_network(host: str, port: int) -> ClosedNetwork:
    """A new network where something listens at ``host``:``port`` of its loopback.

    Raises:
        IsolationImpossible: The system does not allow it.
    """
    # In a thread of its own: only that thread changes its namespace, and ends.
    with ThreadPoolExecutor(1) as pool:
        try:
            return pool.submit(_make, host, port).result()
        except OSError as error:
            raise IsolationImpossible(f"no network namespace can be made: {error}") from error


def _make(host: str, port: int) -> ClosedNetwork:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    name = b"lo"
    held = fcntl.ioctl(listener, _SIOCGIFFLAGS, struct.pack(_IFREQ, name, 0))
    _, flags = struct.unpack(_IFREQ, held)
    fcntl.ioctl(listener, _SIOCSIFFLAGS, struct.pack(_IFREQ, name, flags | _IFF_UP))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(_WAITING)
    namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    return ClosedNetwork(namespace, listener.detach())
