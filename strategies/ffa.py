"""FFA-LoRA: A is drawn once and never moves; only B trains, is noised and leaves.

With one A for all, the mean of B·A is the mean of B times A, so the average is exact, half of the
numbers travel and noise never meets noise in a product. What it cannot do is leave the row space of
that A. Source: Sun et al. (2024), "Improving LoRA in privacy-preserving federated learning"; rows
made orthonormal as in Lee et al. (2025), "FedSVD", because that keeps gradients of B short.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from wardround.strategies.averaging import Averaging
from wardround.strategies.base import Arrays, State
from wardround.strategies.factors import A, B, named, orthonormal_rows, others, require_layers


@dataclass(frozen=True)
class Ffa(Averaging):
    """Frozen-A LoRA.

    Attributes:
        orthonormal: Make the rows of A orthonormal at the start; as the task drew them when false.
    """

    orthonormal: bool = True
    name: ClassVar[str] = "ffa"

    def start(self, arrays: Arrays) -> State:
        """The adapter, with A as it will stay."""
        require_layers(arrays, self.name)
        if not self.orthonormal:
            return dict(arrays)
        return {**arrays, **{name: orthonormal_rows(arrays[name]) for name in named(arrays, A)}}

    def moving(self, state: Arrays, round_number: int) -> tuple[str, ...]:
        """B, and whatever is no LoRA factor."""
        return named(state, B) + others(state)
