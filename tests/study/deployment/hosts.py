"""Hosts of a small internet: network namespaces, and wires between them that can be made worse.

A wire is two TUN devices and a thread that carries packets between them, so that delay, loss and
cuts are those of packets (this needs nothing of the kernel beyond TUN). Linux, root. A host has no
name in the system and is gone when its last process and its descriptor are.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import heapq
import os
import select
import struct
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count

NEW_NETWORK = 0x40000000
TUNSETIFF = 0x400454CA
TUN_WITHOUT_HEADER = 0x1001
PACKET_BYTES = 1 << 16
QUEUE_S = 0.05


def _checked(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Host:
    """A network of its own, with loopback."""

    def __init__(self) -> None:
        with ThreadPoolExecutor(1) as pool:  # only that thread changes its namespace, and ends
            self._descriptor = pool.submit(self._make).result()
        self.run("ip", "link", "set", "lo", "up")

    @staticmethod
    def _make() -> int:
        _checked(ctypes.CDLL(None, use_errno=True).unshare(NEW_NETWORK))
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    @property
    def around(self) -> tuple[str, ...]:
        """What a command begins with to run here."""
        return ("nsenter", f"--net=/proc/{os.getpid()}/fd/{self._descriptor}", "--")

    def run(self, *command: str) -> None:
        subprocess.run([*self.around, *command], check=True)

    def tun(self, name: str) -> int:
        """A new TUN device here; packets come from and go to the descriptor."""

        def make() -> int:
            _checked(ctypes.CDLL(None, use_errno=True).setns(self._descriptor, NEW_NETWORK))
            device = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
            fcntl.ioctl(
                device, TUNSETIFF, struct.pack("16sH22x", name.encode(), TUN_WITHOUT_HEADER)
            )
            return device

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(make).result()

    def close(self) -> None:
        os.close(self._descriptor)


@dataclass
class Wire:
    """Joins two hosts; whoever holds it may change how well it carries.

    Attributes:
        ends: A host and its address, twice.
        name: Of the devices, unique at either host.
        delay_s: Each packet's, in either direction.
        loss: Share of packets that are lost, in either direction.
        cut: Whether nothing is carried.
        carried: Packets so far.
        lost: Packets so far.
    """

    ends: tuple[tuple[Host, str], tuple[Host, str]]
    name: str
    delay_s: float = 0.0
    loss: float = 0.0
    cut: bool = False
    carried: int = 0
    lost: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        devices = [host.tun(self.name) for host, _ in self.ends]
        for (host, own), (_, other) in (self.ends, self.ends[::-1]):
            host.run("ip", "address", "add", own, "peer", other, "dev", self.name)
            host.run("ip", "link", "set", self.name, "up")
        self._thread = threading.Thread(target=self._carry, args=devices, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _carry(self, first: int, second: int) -> None:
        """Packets from each device to the other, in time."""
        towards = {first: second, second: first}
        due: list[tuple[float, int, int, bytes]] = []
        numbers = count()
        while not self._stop.is_set():
            wait = min(max(due[0][0] - time.monotonic(), 0.0), QUEUE_S) if due else QUEUE_S
            for device in select.select([first, second], [], [], wait)[0]:
                packet, number = os.read(device, PACKET_BYTES), next(numbers)
                if self.cut or self._loses(number):
                    self.lost += 1
                else:
                    at = time.monotonic() + self.delay_s
                    heapq.heappush(due, (at, number, towards[device], packet))
            while due and due[0][0] <= time.monotonic():
                _, _, device, packet = heapq.heappop(due)
                os.write(device, packet)
                self.carried += 1
        for device in (first, second):
            os.close(device)

    def _loses(self, number: int) -> bool:
        digest = hashlib.sha256(f"{self.name}-{number}".encode()).digest()
        return int.from_bytes(digest[:4]) < self.loss * 2**32


@dataclass
class Internet:
    """A coordinator's host and one a hospital, each on a wire to the coordinator."""

    hospitals: tuple[str, ...]
    address: str = "10.87.0.1"

    def __post_init__(self) -> None:
        self.coordinator = Host()
        self.hosts = {name: Host() for name in self.hospitals}
        here = (self.coordinator, self.address)
        self.wires = {
            name: Wire((here, (host, f"10.87.{number}.1")), f"w{number}")
            for number, (name, host) in enumerate(self.hosts.items(), 1)
        }

    def around(self, where: str) -> tuple[str, ...]:
        """What a command begins with to run at the coordinator or at a hospital."""
        host = self.coordinator if where == "coordinator" else self.hosts[where]
        return host.around

    def close(self) -> None:
        for wire in self.wires.values():
            wire.close()
        for host in (self.coordinator, *self.hosts.values()):
            host.close()
