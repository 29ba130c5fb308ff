"""FedSA-LoRA: A is shared and averaged, every hospital keeps a B of its own.

The B of a hospital never leaves it: a hospital sends A alone, and starts the next round from the
B it stored. There is no final model, only one for each hospital; what the coordinator can show is
A with B at zero, which answers as the base does. B is noised like A, though it stays: the next
gradient of A is taken at B, so a B that had seen records bare would carry them into A past any
clip. Source: Guo et al. (2025), "Selective aggregation for low-rank adaptation in federated
learning".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from wardround.strategies.averaging import Averaging
from wardround.strategies.base import Arrays, Brief, State
from wardround.strategies.factors import A, B, named, others, pick, require_layers


@dataclass(frozen=True)
class FedSa(Averaging):
    """Shared A, personal B."""

    name: ClassVar[str] = "fedsa"

    def start(self, arrays: Arrays) -> State:
        """The adapter as the task drew it."""
        require_layers(arrays, self.name)
        return dict(arrays)

    def moving(self, state: Arrays, round_number: int) -> tuple[str, ...]:
        """A, and whatever is no LoRA factor."""
        return named(state, A) + others(state)

    def brief(self, state: Arrays, round_number: int, rank: int | None = None) -> Brief:
        """A; each hospital brings its own B."""
        moving = self.moving(state, round_number)
        return Brief(pick(state, moving), moving, keeps=named(state, B))
