"""A consortium of three hospitals, one of which is a member; and a handshake on loopback."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from wardround.study.provisioning.authority import found, sign_request
from wardround.study.provisioning.consortium import Consortium
from wardround.study.provisioning.hospital import HospitalFolder, install_kit, request_kit
from wardround.study.provisioning.roster import ConsortiumFolder, fingerprint_of

TERMS = """
[consortium]
name = "Hôpitaux du Nord"

[coordinator]
hosts = ["coordinator.example", "127.0.0.1"]

[[hospitals]]
name = "north"

[[hospitals]]
name = "south"
hosts = ["localhost"]

[[hospitals]]
name = "west"
"""
NOW = datetime.now(UTC).replace(microsecond=0)  # the ssl module looks at the real clock


@dataclass(frozen=True)
class World:
    """Folders of a coordinator and of hospitals, side by side."""

    root: Path
    now: datetime

    @property
    def terms(self) -> Path:
        return self.root / "consortium.toml"

    @property
    def coordinator(self) -> ConsortiumFolder:
        return ConsortiumFolder(self.root / "consortium")

    def hospital(self, name: str) -> HospitalFolder:
        return HospitalFolder(self.root / name)

    def request(self, name: str, now: datetime | None = None, renew: bool = False) -> str:
        """Make ``name``'s request; its fingerprint."""
        path = self.request_path(name)
        terms = Consortium.read(self.terms)
        return request_kit(terms, name, self.hospital(name), path, now or self.now, renew)

    def request_path(self, name: str) -> Path:
        return self.root / f"{name}.request.json"

    def enrol(self, name: str) -> None:
        """From nothing to an installed kit."""
        told = self.request(name)
        kit = sign_request(self.request_path(name), self.coordinator, self.now, told)
        trusted = fingerprint_of(self.coordinator)
        install_kit(kit, self.hospital(name), self.now, trusted)


MakeWorld = Callable[..., World]


@pytest.fixture
def make_world(tmp_path: Path) -> MakeWorld:
    """``make_world(now)``: a founded consortium without members."""

    def make(now: datetime = NOW, terms: str = TERMS, with_keys: bool = False) -> World:
        world = World(tmp_path, now)
        world.terms.write_text(terms, encoding="utf-8")
        found(world.terms, world.coordinator, now, with_keys)
        return world

    return make


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    """A consortium whose member is north."""
    made = make_world()
    made.enrol("north")
    return made


def server_context(pem: Path, ca: Path, crl: Path | None = None) -> ssl.SSLContext:
    """A server that demands a client certificate of ``ca`` and looks at ``crl``, if any."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    context.load_verify_locations(ca)
    context.verify_mode = ssl.CERT_REQUIRED
    if crl is not None:
        context.load_verify_locations(crl)
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return context


def client_context(pem: Path | None, ca: Path) -> ssl.SSLContext:
    """A client that trusts ``ca`` alone and checks host names, by every rule of RFC 5280."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(ca)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    if pem is not None:
        context.load_cert_chain(pem)
    return context


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> str:
    """Empty when both sides accept over loopback, else why one did not."""

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.settimeout(30)
        with connection, server.wrap_socket(connection, server_side=True) as secured:
            secured.sendall(b"!")

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        listener.settimeout(30)
        served = pool.submit(serve, listener)
        errors = []
        try:
            with (
                socket.create_connection(listener.getsockname(), timeout=30) as raw,
                client.wrap_socket(raw, server_hostname=host) as secured,
            ):
                assert secured.recv(1) == b"!"
        except OSError as error:
            errors.append(f"client: {error}")
        problem = served.exception(timeout=30)
        if problem is not None:
            errors.append(f"server: {problem}")
        return "; ".join(errors)


@dataclass(frozen=True)
class Tls:
    """What tests of handshakes need, by fixture: test modules do not import one another."""

    server: Callable[..., ssl.SSLContext] = server_context
    client: Callable[..., ssl.SSLContext] = client_context
    handshake: Callable[..., str] = handshake


@pytest.fixture
def tls() -> Tls:
    """Contexts of Python's own ``ssl``, which knows nothing of how certificates were made."""
    return Tls()
