"""Keys of one session: what a hospital derives from its session seed, and what two agree on.

Everything a hospital needs follows from 32 random bytes and the session, so that after a restart
it says the same words again. Whoever lacks the seed learns nothing from any of it.
Sources: RFC 7748 (X25519), RFC 5869 (HKDF with SHA-256), RFC 8439 (ChaCha20-Poly1305), all through
``cryptography``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
_NONCE = bytes(12)  # each derived key seals one message, so a fixed nonce does not repeat


@dataclass(frozen=True)
class SessionSecrets:
    """A hospital's secrets in one session.

    Attributes:
        envelope: X25519 private key that shares are sealed to.
        pairing: X25519 private key that pairwise masks come from; shared out, in case it drops out.
        blinding: Seed of the hospital's own mask; shared out, in case it survives.
        polynomial: Key of the stream that Shamir's coefficients are drawn from.
    """

    envelope: bytes = field(repr=False)
    pairing: bytes = field(repr=False)
    blinding: bytes = field(repr=False)
    polynomial: bytes = field(repr=False)


def session_secrets(seed: bytes, session: str) -> SessionSecrets:
    """The secrets that follow from a seed of 32 random bytes in this session."""
    names = ("envelope", "pairing", "blinding", "polynomial")
    return SessionSecrets(*(derive(seed, session, f"secret {name}") for name in names))


def derive(secret: bytes, session: str, purpose: str) -> bytes:
    """A 32-byte key for one purpose in one session (HKDF-SHA256)."""
    hkdf = HKDF(hashes.SHA256(), KEY_BYTES, salt=bytes.fromhex(session), info=purpose.encode())
    return hkdf.derive(secret)


def public_key(private: bytes) -> bytes:
    """The X25519 public key of a private one."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agree(private: bytes, public: bytes, session: str, purpose: str) -> bytes:
    """The key that two hospitals have in common for one purpose.

    Raises:
        ValueError: The public key is not a point that a secret can be agreed with.
    """
    shared = X25519PrivateKey.from_private_bytes(private).exchange(
        X25519PublicKey.from_public_bytes(public)
    )
    return derive(shared, session, purpose)


def seal_once(key: bytes, plain: bytes) -> bytes:
    """``plain`` encrypted and authenticated; ``key`` must seal nothing else, ever."""
    return ChaCha20Poly1305(key).encrypt(_NONCE, plain, None)


def open_once(key: bytes, sealed: bytes) -> bytes | None:
    """What ``seal_once`` sealed, or None when it was not sealed with ``key``."""
    try:
        return ChaCha20Poly1305(key).decrypt(_NONCE, sealed, None)
    except InvalidTag:
        return None
