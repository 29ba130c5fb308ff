"""FedEx-LoRA: factors are averaged, and what that gets wrong is added to the frozen background.

The mean of the products minus the product of the means is the covariance of the factors, a sum of
(B_k - B̄)(A_k - Ā) / K. The B_k - B̄ add up to zero, so the last one is minus the others and the
covariance needs (K - 1)·r columns, not K·r. Source: Singhal, Ponkshe and Vepakomma (2025),
"FedEx-LoRA: exact aggregation for federated and efficient fine-tuning of foundation models",
section 4; different ranks by filling up with what a hospital did not train.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from wardround.strategies.base import Arrays, Brief, State, Update
from wardround.strategies.factors import (
    A,
    B,
    adapter,
    background,
    cut,
    cut_off,
    layers,
    pad,
    write_background,
)
from wardround.strategies.low_rank import Product, bounded, stack
from wardround.strategies.products import Products


@dataclass(frozen=True)
class FedEx(Products):
    """Averaged factors and their residual."""

    name: ClassVar[str] = "fedex"

    def brief(self, state: Arrays, round_number: int, rank: int | None = None) -> Brief:
        """The adapter; what a lower rank cuts off is background too."""
        whole = super().brief(state, round_number)
        if rank is None:
            return whole
        behind = dict(whole.background)
        for layer, rest in cut_off(whole.arrays, rank).items():
            held = background(state, layer)
            behind |= write_background(layer, stack([rest] if held is None else [held, rest]))
        arrays = cut(whole.arrays, rank)
        return Brief(arrays, tuple(arrays), background=behind)

    def merge(self, state: State, round_number: int, updates: Sequence[Update]) -> State:
        """The means of the factors, and the covariance in the background."""
        start = adapter(state)
        ended = [_whole(start, update) for update in updates]
        for layer in layers(state):
            factors = [(arrays[layer + B], arrays[layer + A]) for arrays in ended]
            mean_b = torch.stack([b for b, _ in factors]).mean(0)
            mean_a = torch.stack([a for _, a in factors]).mean(0)
            last = factors[-1][1]
            held = background(state, layer)
            blocks = [Product((b - mean_b) / len(factors), a - last) for b, a in factors[:-1]] + (
                [] if held is None else [held]
            )
            if blocks:
                state |= write_background(layer, bounded(stack(blocks)))
            state |= {layer + A: mean_a.float(), layer + B: mean_b.float()}
        return state


def _whole(start: Arrays, update: Update) -> dict[str, Tensor]:
    """A hospital's factors at the study's full rank."""
    change = pad(update.change, start)
    return {name: start[name].double() + moved for name, moved in change.items()}
