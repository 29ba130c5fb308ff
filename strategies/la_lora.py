"""LA-LoRA: within a round B and A move in turn, one local step each; the server averages both.

No step noises both factors, so noise meets noise in a product only through the average, which is
inexact as FedAvg's is. The noised gradient may be smoothed along a layer's features; that assumes
that neighbouring features are alike, as they are in images, so it is off unless asked for. Source:
Liu et al. (2026), "LA-LoRA: local alternating LoRA for private federated learning", algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from wardround.strategies.averaging import Averaging
from wardround.strategies.base import Arrays, Brief, State
from wardround.strategies.factors import A, B, adapter, named, others, require_layers


@dataclass(frozen=True)
class LaLora(Averaging):
    """Alternation inside the round.

    Attributes:
        smoothing: Smooth noised gradients along features.
    """

    smoothing: bool = False
    name: ClassVar[str] = "la_lora"

    def start(self, arrays: Arrays) -> State:
        """The adapter as the task drew it."""
        require_layers(arrays, self.name)
        return dict(arrays)

    def brief(self, state: Arrays, round_number: int, rank: int | None = None) -> Brief:
        """Everything trains; B moves in the first step, A in the second, and so on."""
        turns = tuple(named(state, factor) + others(state) for factor in (B, A))
        training = {"smoothing": True} if self.smoothing else {}
        arrays = adapter(state)
        return Brief(arrays, tuple(arrays), turns=turns, training=training)
