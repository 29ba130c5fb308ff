"""Masks: a 32-byte key stretched to a row of uniform words, added or taken away modulo 2**bits.

A word plus a uniform word is uniform whatever the word was, as long as the key is used once. Keys
have all 256 bits; the SecAgg+ that Flower ships seeds its masks with 32, which a laptop tries out.
Source: RFC 8439 (ChaCha20) as the generator; Bonawitz et al. (2017), section 4.
"""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from wardround.privacy.secagg.lattice import Words

_CHUNK_BYTES = 2**18  # stretched at once: small enough for a core's cache
_SLACK_BYTES = 64  # the cipher asks for room to spare
_ZEROS = memoryview(bytes(_CHUNK_BYTES))


def add_mask(words: Words, key: bytes) -> None:
    """Add the mask of ``key`` to ``words``, in place; a key must mask one row only, ever."""
    _combine(words, key, add=True)


def remove_mask(words: Words, key: bytes) -> None:
    """Take the mask of ``key`` off ``words``, in place."""
    _combine(words, key, add=False)


def _combine(words: Words, key: bytes, add: bool) -> None:
    """Add or subtract a key's mask, a cache's worth at a time."""
    # The block counter of RFC 8439 has 32 bits: 256 GiB, far beyond any row.
    keystream = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()
    room = bytearray(_CHUNK_BYTES + _SLACK_BYTES)
    per_chunk = _CHUNK_BYTES // words.itemsize
    for start in range(0, len(words), per_chunk):
        part = words[start : start + per_chunk]
        keystream.update_into(_ZEROS[: part.nbytes], room)
        mask = np.frombuffer(memoryview(room)[: part.nbytes], part.dtype)
        if add:
            part += mask
        else:
            part -= mask
