"""Where a custodian answers: a Unix socket in a folder of its own, or a port under mutual TLS.

Whoever can open the socket may ask; file permissions decide who that is. Over TCP both ends show a
certificate of the same authority, and the custodian answers only the names it was told: everybody
in a consortium has a certificate, the relay of this hospital has one of these names.
"""

from __future__ import annotations

import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from wardround.privacy.errors import BadInput

SOCKET_MODE = 0o660
_LONGEST_PATH = 107  # bytes; sun_path of unix(7) less its final zero
_FORBIDDEN = 0o027  # group may look in and connect, others nothing

_OPTIONS = [("grpc.so_reuseport", 0)]
_PATIENT = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
]


@dataclass(frozen=True)
class UnixSocket:
    """A socket file.

    Attributes:
        path: The file; its folder is private to the custodian and, at most, a group.
    """

    path: Path

    def __post_init__(self) -> None:
        size = len(os.fsencode(self.path.absolute()))
        if size > _LONGEST_PATH:
            raise BadInput(
                f"socket {self.path}: {size} bytes long, the system allows {_LONGEST_PATH}"
            )

    def bind(self, server: Any) -> None:
        """Let ``server`` listen here.

        Raises:
            BadInput: The folder is open to others, or something answers here or is in the way.
        """
        folder = self.path.absolute().parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = stat.S_IMODE(folder.stat().st_mode)
        if mode & _FORBIDDEN:
            raise BadInput(f"{folder}: mode is {mode:04o}; a custodian's socket needs 0750 or less")
        if self.path.exists() and not self.path.is_socket():
            raise BadInput(f"{self.path}: exists and is no socket")
        if _answers(self.path):
            raise BadInput(f"{self.path}: another process answers here")
        self.path.unlink(missing_ok=True)
        server.add_insecure_port(self._target)
        self.path.chmod(SOCKET_MODE)

    def admits(self, context: Any) -> bool:
        """Whether a caller may ask; here the file's permissions have decided."""
        return True

    def channel(self) -> Any:
        """A gRPC channel to whoever listens here, now or later."""
        return grpc.insecure_channel(self._target, _PATIENT)

    @property
    def _target(self) -> str:
        return f"unix:{self.path.absolute()}"


@dataclass(frozen=True)
class TlsAddress:
    """A port under mutual TLS.

    Attributes:
        address: ``HOST:PORT``; a caller's HOST is a name in the custodian's certificate.
        authority: Certificate that the other end's must be signed by.
        identity: Private key and certificate of this end, in one PEM file.
        callers: Names of which a caller's certificate must hold one; of no use to a caller.
    """

    address: str
    authority: Path
    identity: Path
    callers: tuple[str, ...] = ()

    def bind(self, server: Any) -> None:
        """Let ``server`` listen here.

        Raises:
            BadInput: No caller is named, a file cannot be used, or the port is taken.
        """
        if not self.callers:
            raise BadInput(f"{self.address}: name the relays that may call, or nobody can")
        identity = _read(self.identity)
        credentials = grpc.ssl_server_credentials(
            [(identity, identity)], _read(self.authority), require_client_auth=True
        )
        try:
            server.add_secure_port(self.address, credentials)
        except RuntimeError as error:
            raise BadInput(f"{self.address}: cannot listen here") from error

    def admits(self, context: Any) -> bool:
        """Whether the caller's certificate, already verified, holds one of our names."""
        shown = context.auth_context()
        names = [
            *shown.get("x509_common_name", ()),
            *shown.get("x509_subject_alternative_name", ()),
        ]
        return any(name.decode() in self.callers for name in names)

    def channel(self) -> Any:
        """A gRPC channel to whoever listens here, now or later."""
        identity = _read(self.identity)
        credentials = grpc.ssl_channel_credentials(_read(self.authority), identity, identity)
        return grpc.secure_channel(self.address, credentials, _PATIENT)


Place = UnixSocket | TlsAddress


def server_options() -> list[tuple[str, int]]:
    """Options of every custodian's server: a port belongs to one process."""
    return list(_OPTIONS)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from error


def _answers(path: Path) -> bool:
    """Whether a process accepts connections at ``path``."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True
