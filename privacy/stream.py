"""Secure randomness: a ChaCha20 key stream from an operating-system key, for noise and selection.

Law 7: randomness is an argument. There is no module-level generator; a stream is made where a round
starts and passed down. A stream made from a known key exists for tests and for nothing else.
Source: RFC 8439 (ChaCha20); Box and Muller (1958) for the normals, in float64.
"""

from __future__ import annotations

import math
import secrets
from typing import Self

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from numpy.typing import NDArray
from torch import Tensor

_KEY_BYTES = 32


class SecureStream:
    """An unpredictable stream of random numbers; never seeded from anything guessable."""

    def __init__(self, key: bytes) -> None:
        if len(key) != _KEY_BYTES:
            raise ValueError(f"a stream key has {_KEY_BYTES} bytes, not {len(key)}")
        # One key makes one stream and is never used again, so a zero nonce cannot repeat.
        self._keystream = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()

    @classmethod
    def from_os(cls) -> Self:
        """A stream keyed by the operating system's generator."""
        return cls(secrets.token_bytes(_KEY_BYTES))

    def uniform(self, count: int) -> NDArray[np.float64]:
        """Numbers strictly between 0 and 1 with 53 random bits each, shape ``(count,)``."""
        words = np.frombuffer(self._keystream.update(bytes(8 * count)), dtype="<u8")
        return ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53

    def normal(self, shape: torch.Size | tuple[int, ...]) -> Tensor:
        """Independent standard normals of this shape, float64."""
        count = math.prod(shape)
        half = (count + 1) // 2
        uniform = torch.from_numpy(self.uniform(2 * half))
        radius = uniform[:half].log().mul_(-2).sqrt_()
        angle = uniform[half:].mul_(2 * math.pi)
        both = torch.cat([radius * angle.cos(), radius * angle.sin()])
        return both[:count].view(shape)

    def bernoulli(self, count: int, probability: float) -> NDArray[np.bool_]:
        """Independent coins, shape ``(count,)``; true with ``probability``."""
        return self.uniform(count) < probability
