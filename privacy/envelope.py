"""Signed bytes: 64 bytes of Ed25519 signature, then the payload; how everything travels.

The context string keeps a signature made for one purpose from being passed off as another.
"""

from __future__ import annotations

import json
from typing import Any

from wardround.privacy.errors import BadMessage
from wardround.privacy.signing import SigningKey, verify

SIGNATURE_BYTES = 64


def seal_bytes(payload: bytes, key: SigningKey, context: str) -> bytes:
    """``payload`` with a signature in front that holds for this ``context`` only."""
    return bytes.fromhex(key.sign(_bound(context, payload))) + payload


def open_bytes(sealed: bytes, public: str, context: str) -> bytes:
    """The payload, once its signature has been verified.

    Raises:
        BadMessage: Too short to hold a signature.
        UntrustedPeer: Not signed by ``public`` for this ``context``.
    """
    if len(sealed) <= SIGNATURE_BYTES:
        raise BadMessage(f"{context}: {len(sealed)} bytes are too few to be signed")
    signature, payload = sealed[:SIGNATURE_BYTES], sealed[SIGNATURE_BYTES:]
    verify(public, _bound(context, payload), signature.hex(), context)
    return payload


def parse_document(payload: bytes, what: str) -> dict[str, Any]:
    """A JSON object from bytes, or ``BadMessage`` naming ``what``."""
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise BadMessage(f"{what}: not JSON") from error
    if not isinstance(document, dict):
        raise BadMessage(f"{what}: not a JSON object")
    return document


def _bound(context: str, payload: bytes) -> bytes:
    return b"wardround " + context.encode() + b"\n" + payload
