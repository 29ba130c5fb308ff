"""Fed-SB: a small square R between two frozen factors is all that trains; what is added is B·R·A.

The mean of R is exact, r² numbers leave a hospital for each layer whatever the layer's size, and
noise enters the product once. The published method takes B and A from a first gradient on training
data; that would be a release of its own, so here they are random, orthonormal and public. Sources:
Singhal et al. (2025), "Fed-SB: a silver bullet for extreme communication efficiency and performance
in (private) federated LoRA fine-tuning"; Ponkshe et al. (2024), "LoRA-SB".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from wardround.strategies.averaging import Averaging
from wardround.strategies.base import Arrays, Brief, Model, State
from wardround.strategies.factors import (
    CORE,
    A,
    B,
    adapter,
    named,
    orthonormal_rows,
    others,
    require_layers,
)


@dataclass(frozen=True)
class FedSb(Averaging):
    """Square cores between frozen factors.

    Attributes:
        seed: Public; draws B.
    """

    seed: int = 0
    name: ClassVar[str] = "fed_sb"

    def start(self, arrays: Arrays) -> State:
        """Orthonormal A and B, and R zero, so that the model starts as the base."""
        state, generator = dict(arrays), torch.Generator().manual_seed(self.seed)
        for layer in require_layers(arrays, self.name):
            a, b = arrays[layer + A], arrays[layer + B]
            drawn = torch.randn((b.shape[1], b.shape[0]), generator=generator)
            state |= {
                layer + A: orthonormal_rows(a),
                layer + B: orthonormal_rows(drawn).T.contiguous(),
                layer + CORE: torch.zeros(b.shape[1], a.shape[0]),
            }
        return state

    def moving(self, state: Arrays, round_number: int) -> tuple[str, ...]:
        """R, and whatever is no part of a layer."""
        return named(state, CORE) + others(state)

    def brief(self, state: Arrays, round_number: int, rank: int | None = None) -> Brief:
        """All three, in an adapter that has the third."""
        return replace(super().brief(state, round_number, rank), adapter={"core": True})

    def deploy(self, state: Arrays) -> Model:
        """An ordinary adapter: R is multiplied into B."""
        arrays = {n: array for n, array in adapter(state).items() if not n.endswith(CORE)}
        for name in named(state, CORE):
            layer = name.removesuffix(CORE)
            arrays[layer + B] = arrays[layer + B] @ state[name]
        return Model(arrays)
