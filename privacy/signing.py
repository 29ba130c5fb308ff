"""Signatures: Ed25519 over canonical JSON or bytes, for plans, updates, reports and ledger entries.

Source: RFC 8032 through ``cryptography``. Keys are files of 0600 with the raw 32-byte seed in PEM.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from wardround.privacy.errors import BadInput, UntrustedPeer


def canonical(document: Mapping[str, Any]) -> bytes:
    """One byte string per JSON document: sorted keys, no spaces, no NaN."""
    return json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


class SigningKey:
    """A private key and who it speaks for."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private

    @classmethod
    def generate(cls) -> SigningKey:
        """A fresh key from the operating system's generator."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load_or_create(cls, path: Path) -> SigningKey:
        """The key in ``path``; made there, readable by its owner only, when the file is absent."""
        if not path.exists():
            key = cls.generate()
            pem = key._private.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(pem)
                file.flush()
                os.fsync(file.fileno())
            return key
        try:
            private = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise BadInput(f"{path}: not a private key in PEM form without passphrase") from error
        if not isinstance(private, Ed25519PrivateKey):
            raise BadInput(f"{path}: not an Ed25519 key")
        return cls(private)

    @property
    def public(self) -> str:
        """The public key, 64 hexadecimal digits."""
        return self._private.public_key().public_bytes_raw().hex()

    def sign(self, data: bytes) -> str:
        """Signature over ``data``, 128 hexadecimal digits."""
        return self._private.sign(data).hex()


def verify(public: str, data: bytes, signature: str, what: str) -> None:
    """Raise ``UntrustedPeer`` naming ``what`` unless ``public`` signed ``data``."""
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
        key.verify(bytes.fromhex(signature), data)
    except (InvalidSignature, ValueError) as error:
        raise UntrustedPeer(
            f"{what}: the signature does not verify with key {public[:12]}…"
        ) from error
