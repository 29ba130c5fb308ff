"""Secure randomness: a ChaCha20 key stream from an operating-system key, for noise and selection.

Law 7: randomness is an argument. There is no module-level generator; a stream is made where a round
starts and passed down. A stream made from a known key exists for tests and for nothing else.
Sources: RFC 8439 (ChaCha20); Box and Muller (1958) for the normals, in float64; Bernstein (2017),
"Fast-key-erasure random-number generators", for replacing the key by stream output.
"""

from __future__ import annotations

import math
import os
import secrets
from typing import Self

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from numpy.typing import NDArray
from torch import Tensor

_KEY_BYTES = 32
_BYTES_PER_KEY = 2**30  # far below 256 GiB, where the 32-bit block counter of RFC 8439 would wrap
_CHUNK = 2**16  # normals made at once: few enough to stay in a core's cache
_WORD_BYTES = 8
_ZEROS = memoryview(bytes(_CHUNK * _WORD_BYTES))  # what the key stream is XORed with
_SLACK_BYTES = 64  # the cipher asks for room to spare


class SecureStream:
    """An unpredictable stream of random numbers; never seeded from anything guessable.

    One thread uses it, in one process: after a fork both sides would draw the same noise, so the
    child's first draw raises.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != _KEY_BYTES:
            raise ValueError(f"a stream key has {_KEY_BYTES} bytes, not {len(key)}")
        self._process = os.getpid()
        self._use(key)

    @classmethod
    def from_os(cls) -> Self:
        """A stream keyed by the operating system's generator."""
        return cls(secrets.token_bytes(_KEY_BYTES))

    def uniform(self, count: int) -> NDArray[np.float64]:
        """Numbers strictly between 0 and 1 with 53 random bits each, shape ``(count,)``."""
        words = self.words(count)
        return ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53

    def words(self, count: int) -> NDArray[np.uint64]:
        """Uniform 64-bit words, shape ``(count,)``."""
        return np.frombuffer(self._bytes(count * _WORD_BYTES), dtype="<u8")

    def below(self, bound: int, count: int) -> NDArray[np.int64]:
        """Uniform integers in ``[0, bound)``, without the bias of a remainder, shape ``(count,)``.

        ``bound`` is at most 2**62.
        """
        accepted = np.empty(0, np.uint64)
        limit = np.uint64(2**64 // bound * bound - 1)
        while len(accepted) < count:
            words = self.words(count - len(accepted))
            accepted = np.concatenate([accepted, words[words <= limit] % np.uint64(bound)])
        return accepted.astype(np.int64)

    def normal(self, shape: torch.Size | tuple[int, ...]) -> Tensor:
        """Independent standard normals of this shape, float64, within ±9.5.

        The radius is drawn from 63 bits, so that values beyond 8 still come from hundreds of
        thousands of levels; what is missing beyond 9.4 has a probability of 1e-20.
        """
        count = math.prod(shape)
        out = torch.empty(count, dtype=torch.float64)
        for start in range(0, count, _CHUNK):
            self._fill_normals(out[start : start + _CHUNK])
        return out.view(shape)

    def bernoulli(self, count: int, probability: float) -> NDArray[np.bool_]:
        """Independent coins, shape ``(count,)``; true with ``probability``."""
        return self.uniform(count) < probability

    def subset(self, count: int, at_most: int) -> list[int]:
        """A uniform choice of ``at_most`` positions out of ``count``, ascending; all if fewer."""
        if count <= at_most:
            return list(range(count))
        chosen = np.argsort(self.words(count), kind="stable")[:at_most]
        ascending: list[int] = np.sort(chosen).tolist()
        return ascending

    def _fill_normals(self, out: Tensor) -> None:
        """Overwrite ``out`` with standard normals (Box and Muller)."""
        half = (len(out) + 1) // 2
        words = torch.frombuffer(self._bytes(2 * half * _WORD_BYTES), dtype=torch.int64)
        level = words[:half].bitwise_and(2**63 - 1).double().add_(0.5).mul_(2.0**-63)
        radius = level.log_().mul_(-2).sqrt_()
        angle = words[half:].double().mul_(math.pi * 2.0**-63)
        torch.mul(radius, angle.cos(), out=out[:half])
        torch.mul(radius[: len(out) - half], angle[: len(out) - half].sin(), out=out[half:])

    def _use(self, key: bytes) -> None:
        """Go on with a new key; it makes one stream, so a zero nonce cannot repeat."""
        self._keystream = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()
        self._left_bytes = _BYTES_PER_KEY

    def _bytes(self, count: int) -> memoryview:
        """The next ``count`` bytes of the stream."""
        if os.getpid() != self._process:
            raise RuntimeError("a secure stream was taken into another process; make a new one")
        out = bytearray(count + _SLACK_BYTES)
        view, done = memoryview(out), 0
        while done < count:
            if self._left_bytes == 0:
                self._use(self._keystream.update(bytes(_KEY_BYTES)))
            part = min(count - done, self._left_bytes, len(_ZEROS))
            self._keystream.update_into(_ZEROS[:part], view[done:])
            self._left_bytes -= part
            done += part
        return view[:count]
