"""A custodian behind mutual TLS answers the relay it was told of, and nobody else."""

from __future__ import annotations

import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from wardround.client.custody.calling import CustodianUnreachable, RemoteCustodian
from wardround.client.custody.place import TlsAddress
from wardround.client.custody.serving import CustodianServer
from wardround.privacy.errors import BadInput, UntrustedPeer
from wardround.study.provisioning.certificates import Holder, issue, make_authority, pem
from wardround.study.provisioning.keys import new_tls_key

NOW = datetime.now(UTC).replace(microsecond=0)


class Fixed:
    def declare(self) -> bytes:
        return b"declared"

    def train(self, sealed_plan: bytes, arrays_block: bytes) -> bytes:
        return arrays_block

    def secure_sum(self, sealed_request: bytes, arrays_block: bytes) -> bytes:
        return arrays_block


Identity = Callable[[str], Path]


def consortium(folder: Path) -> Identity:
    """Writes an authority to ``ca.crt``; issues certificates, each with its key in one file."""
    folder.mkdir()
    key = load_pem_private_key(new_tls_key().encode(), None)
    authority = make_authority("Trial", key, NOW - timedelta(hours=2), 30)  # type: ignore[arg-type]
    (folder / "ca.crt").write_text(pem([authority.certificate]))

    def identity(name: str) -> Path:
        text = new_tls_key()
        public = load_pem_private_key(text.encode(), None).public_key()
        holder = Holder(name, ("localhost",), client=True)
        certificate = issue(authority, holder, public, NOW, 10)  # type: ignore[arg-type]
        path = folder / f"{name}.pem"
        path.write_text(text + pem([certificate]))
        return path

    return identity


def test_only_the_relay_is_answered(tmp_path: Path) -> None:
    ours, strangers = consortium(tmp_path / "a"), consortium(tmp_path / "b")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"localhost:{free.getsockname()[1]}"
    authority = tmp_path / "a" / "ca.crt"
    with pytest.raises(BadInput, match="name the relays"):
        CustodianServer(Fixed(), TlsAddress(address, authority, ours("custodian")))
    place = TlsAddress(address, authority, ours("custodian"), callers=("relay",))
    server = CustodianServer(Fixed(), place)
    try:
        large = b"x" * (5 << 20)
        with RemoteCustodian(TlsAddress(address, authority, ours("relay")), 20.0) as relay:
            assert relay.declare() == b"declared"
            assert relay.train(b"", large) == large
        with (
            RemoteCustodian(TlsAddress(address, authority, ours("other")), 20.0) as other,
            pytest.raises(UntrustedPeer, match="not a relay of this custodian"),
        ):
            other.declare()
        with (
            RemoteCustodian(TlsAddress(address, authority, strangers("relay")), 0.5) as stranger,
            pytest.raises(CustodianUnreachable),
        ):
            stranger.declare()
        with pytest.raises(BadInput, match="cannot listen here"):
            CustodianServer(Fixed(), place)
    finally:
        assert server.stop(5.0)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.pem: No such file"):
        RemoteCustodian(TlsAddress("localhost:1", tmp_path, tmp_path / "none.pem"))
