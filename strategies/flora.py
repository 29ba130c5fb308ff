"""FLoRA: the hospitals' factors are stacked, which adds up their products exactly, whatever ranks.

Stacked, [B_1 … B_K] times [A_1; …; A_K] / K is the mean of the products. It joins the frozen
background, and every round starts with a fresh A and B zero. Noise that is in the background stays
there. A hospital keeps nothing between rounds, so it gets the whole background each time; once
that has more columns than the layer can need it is compressed, which loses nothing. Source: Wang
et al. (2024), "FLoRA: federated fine-tuning large language models with heterogeneous low-rank
adaptations", section 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from wardround.privacy.signing import canonical, sha256
from wardround.strategies.base import State, Update
from wardround.strategies.factors import A, B, background, layers, product, write_background
from wardround.strategies.low_rank import bounded, stack
from wardround.strategies.products import Products, after


@dataclass(frozen=True)
class Flora(Products):
    """Stacking.

    Attributes:
        seed: Public; draws each round's fresh A.
    """

    seed: int = 0
    name: ClassVar[str] = "flora"

    def merge(self, state: State, round_number: int, updates: Sequence[Update]) -> State:
        """Everybody's products in the background, and fresh factors in front of it."""
        ended = [after(state, update) for update in updates]
        for layer in layers(state):
            held = background(state, layer)
            added = [product(arrays, layer).scaled(1 / len(ended)) for arrays in ended]
            whole = bounded(stack([*([] if held is None else [held]), *added]))
            state |= write_background(layer, whole)
            state[layer + A] = self._fresh(layer, round_number, state[layer + A])
            state[layer + B] = torch.zeros_like(state[layer + B])
        return state

    def _fresh(self, layer: str, round_number: int, like: Tensor) -> Tensor:
        """Uniform in ± 1 / sqrt(n), as at the start; the same round always draws the same."""
        draw = sha256(canonical({"seed": self.seed, "round": round_number, "layer": layer}))
        generator = torch.Generator().manual_seed(int(draw[:15], 16))
        return (2 * torch.rand(like.shape, generator=generator) - 1) / math.sqrt(like.shape[1])
