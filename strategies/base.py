"""The seam of a strategy: how the hospitals' updates become the next model.

An update is the change of every trainable array, already noised. A strategy adds updates one at a
time and keeps none of them, so the coordinator's memory does not grow with the number of
hospitals.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol

from torch import Tensor

Arrays = Mapping[str, Tensor]


class Aggregation(Protocol):
    """One round's running aggregate."""

    def add(self, delta: Arrays) -> None:
        """Take in one hospital's change; the arrays may be dropped afterwards."""

    def finish(self) -> dict[str, Tensor]:
        """The next global arrays."""


class Strategy(Protocol):
    """How updates are combined."""

    name: ClassVar[str]

    def begin(self, arrays: Arrays) -> Aggregation:
        """A new round that starts from these global arrays."""
