"""Private keys: making them, writing them for their owner alone, and reading them back.

Three keys a hospital: Ed25519 signs plans' answers and the ledger; P-384 in OpenSSH form is what
Flower's SuperNode proves itself with; P-256 is for TLS. No key is ever part of a message, a log
line or a ``repr``.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wardround.privacy.disk import Disk
from wardround.privacy.errors import BadInput
from wardround.privacy.signing import SigningKey

_OTHERS = 0o077  # permission bits of everybody but the owner
_SECRET_BYTES = 32
_PEM = serialization.Encoding.PEM
_PKCS8 = serialization.PrivateFormat.PKCS8
_OPENSSH = serialization.PrivateFormat.OpenSSH


def _encode(
    key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey,
    form: serialization.PrivateFormat = _PKCS8,
) -> str:
    return key.private_bytes(_PEM, form, serialization.NoEncryption()).decode()


def new_signing_key() -> str:
    """A fresh Ed25519 key as ``privacy.signing`` reads it."""
    return _encode(Ed25519PrivateKey.generate())


def new_node_key() -> str:
    """A fresh P-384 key in OpenSSH form, as Flower's SuperNode reads it."""
    return _encode(ec.generate_private_key(ec.SECP384R1()), _OPENSSH)


def new_tls_key() -> str:
    """A fresh P-256 key for certificates."""
    return _encode(ec.generate_private_key(ec.SECP256R1()))


def new_secret() -> str:
    """A shared secret for Flower's Runtime API; without a line end, which Flower would count."""
    return secrets.token_hex(_SECRET_BYTES)


@dataclass(frozen=True)
class HospitalKeys:
    """The private keys of one hospital, as the texts that its files hold."""

    signing: str = field(repr=False)
    node: str = field(repr=False)
    tls: str = field(repr=False)

    @classmethod
    def generate(cls) -> HospitalKeys:
        """Fresh keys from the operating system's generator."""
        return cls(new_signing_key(), new_node_key(), new_tls_key())


def load_signing_key(text: str, what: str) -> Ed25519PrivateKey:
    """The Ed25519 key in ``text``; ``BadInput`` names ``what``, never the text."""
    key = _load(text, serialization.load_pem_private_key, what)
    if not isinstance(key, Ed25519PrivateKey):
        raise BadInput(f"{what}: not an Ed25519 key")
    return key


def signing_key(text: str, what: str) -> SigningKey:
    """The Ed25519 key in ``text``, ready to sign documents."""
    return SigningKey(load_signing_key(text, what))


def load_tls_key(text: str, what: str) -> ec.EllipticCurvePrivateKey:
    """The P-256 key in ``text``; whatever else the PEM file holds is passed over."""
    return _on_curve(_load(text, serialization.load_pem_private_key, what), "secp256r1", what)


def load_node_key(text: str, what: str) -> ec.EllipticCurvePrivateKey:
    """The P-384 key in ``text``."""
    return _on_curve(_load(text, serialization.load_ssh_private_key, what), "secp384r1", what)


def node_public(key: ec.EllipticCurvePrivateKey) -> str:
    """The public half as ``flwr supernode register`` takes it, without a comment."""
    public = key.public_key()
    return public.public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    ).decode()


def write_private(path: Path, text: str) -> None:
    """Let ``path`` hold ``text``, durably, readable by its owner alone; the folder likewise."""
    make_private_folder(path.parent)
    Disk().write_file(path, text.encode(), mode=0o600)


def write_public(path: Path, content: bytes) -> None:
    """Let ``path`` hold ``content``, durably, or what it held before."""
    Disk().write_file(path, content, mode=0o644)


def make_private_folder(folder: Path) -> None:
    """A folder that nobody but its owner can look into; an existing one stays as it is."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def read_private(path: Path) -> str:
    """The text of a private file.

    Raises:
        BadInput: It is missing, or others than its owner may read or change it.
    """
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read()
    except FileNotFoundError as error:
        raise BadInput(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read") from error
    if mode & _OTHERS:
        raise BadInput(
            f"{path}: permissions are {mode & 0o777:04o}; a private key must be 0600: "
            f"chmod 600, and renew it if others use this machine"
        )
    return text


def read_or_make(path: Path, make: Callable[[], str]) -> str:
    """The private file's text; made and written when it is absent."""
    if not path.exists():
        write_private(path, make())
    return read_private(path)


def _load(text: str, load: Callable[[bytes, None], object], what: str) -> object:
    try:
        return load(text.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm, NotImplementedError):
        # The cause is left out: parsers may quote what they were given.
        raise BadInput(f"{what}: not a private key without a passphrase") from None


def _on_curve(key: object, curve: str, what: str) -> ec.EllipticCurvePrivateKey:
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != curve:
        raise BadInput(f"{what}: not a key on the curve {curve}")
    return key
