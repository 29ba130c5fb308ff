"""Public, repeatable choices for generated data: the same seed and purpose, the same draws.

Counter mode over SHA-256, so a draw depends on nothing but its seed, its purpose and its place in
the order: not on Python's or PyTorch's version, not on what else was drawn. Never for privacy:
noise and the selection of records come from a secret stream, and this one is public on purpose.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


class Draws:
    """An endless row of repeatable choices.

    Args:
        seed: Any integer.
        purpose: What the draws are for; two purposes under one seed are unrelated.
    """

    def __init__(self, seed: int, purpose: str) -> None:
        self._key = f"{seed}/{purpose}".encode()
        self._counter = 0

    def below(self, bound: int) -> int:
        """A uniform integer in ``[0, bound)``; values past the last whole lap are redrawn."""
        if bound < 1:
            raise ValueError(f"bound is {bound}; it must be at least 1")
        last_lap = (1 << 64) - (1 << 64) % bound
        while (value := self._next()) >= last_lap:
            pass
        return value % bound

    def choice(self, items: Sequence[Item]) -> Item:
        """One item, each as likely as the next."""
        return items[self.below(len(items))]

    def sample(self, items: Sequence[Item], count: int) -> list[Item]:
        """``count`` different places of ``items``, in random order."""
        if count > len(items):
            raise ValueError(f"cannot draw {count} of {len(items)} items")
        pool = list(items)
        for place in range(count):
            other = place + self.below(len(pool) - place)
            pool[place], pool[other] = pool[other], pool[place]
        return pool[:count]

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        """All items in random order (Fisher and Yates)."""
        return self.sample(items, len(items))

    def _next(self) -> int:
        """The next 64 uniform bits."""
        block = hashlib.sha256(self._key + b"/" + str(self._counter).encode()).digest()
        self._counter += 1
        return int.from_bytes(block[:8], "big")
