"""RoLoRA: B moves in odd rounds, A in even ones; the other is frozen, noiseless and stays at home.

In every round one factor is the same for all, so the average is exact, half of the numbers travel
and noise never meets noise in a product; over two rounds both factors have moved. B comes first,
because it starts at zero and A has no gradient until it has moved. Source: Chen et al. (2025),
"Robust federated finetuning of LLMs via alternating optimization of LoRA", algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from wardround.strategies.averaging import Averaging
from wardround.strategies.base import Arrays, State
from wardround.strategies.factors import A, B, named, others, require_layers


@dataclass(frozen=True)
class RoLora(Averaging):
    """One factor a round, in turn."""

    name: ClassVar[str] = "rolora"

    def start(self, arrays: Arrays) -> State:
        """The adapter as the task drew it."""
        require_layers(arrays, self.name)
        return dict(arrays)

    def moving(self, state: Arrays, round_number: int) -> tuple[str, ...]:
        """B in odd rounds, A in even ones, and whatever is no LoRA factor."""
        return named(state, B if round_number % 2 else A) + others(state)
