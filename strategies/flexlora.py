"""FlexLoRA: the mean of the products, cut back by singular values to what each hospital can hold.

The mean is kept as factors of all the columns it needs: stacked, then QR and a small singular value
decomposition, as HLoRA does, so the layer's own m x n matrix is never made. A hospital of rank r
starts from the best r columns. What they leave out is in the deployed model, and as published it is
lost to the next round; ``keep_rest`` sends it along as background instead. Sources: Bai et al.
(2024), "Federated fine-tuning of large language models under heterogeneous tasks and client
resources" (FlexLoRA), algorithm 1; Liu et al. (2025), "HLoRA".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from wardround.strategies.base import Arrays, Brief, State, Update
from wardround.strategies.factors import (
    BACKGROUND_A,
    BACKGROUND_B,
    A,
    background,
    layers,
    product,
    write_background,
    write_product,
)
from wardround.strategies.low_rank import Product, compress, split, stack
from wardround.strategies.products import Products, after


@dataclass(frozen=True)
class FlexLora(Products):
    """Truncated singular value decomposition of the mean product.

    Attributes:
        keep_rest: Send what truncation leaves out as background, so that no round loses it.
    """

    keep_rest: bool = False
    name: ClassVar[str] = "flexlora"

    def brief(self, state: Arrays, round_number: int, rank: int | None = None) -> Brief:
        """The best columns that the rank holds, and the rest only when asked for."""
        brief = super().brief(state, round_number, rank)
        if not self.keep_rest:
            return replace(brief, background={})
        behind: State = {}
        for layer in layers(state):
            behind |= write_background(layer, stack(self._rest(state, layer, rank)))
        return replace(brief, background=behind)

    def merge(self, state: State, round_number: int, updates: Sequence[Update]) -> State:
        """The mean of all products, its best columns in front and the others behind."""
        ended = [after(state, update) for update in updates]
        for layer in layers(state):
            share = 1 / len(updates)
            blocks = [product(arrays, layer).scaled(share) for arrays in ended]
            if self.keep_rest:
                for update in updates:
                    rest = self._rest(state, layer, update.rank)
                    blocks += [block.scaled(share) for block in rest]
            rank = state[layer + A].shape[0]
            head, tail = split(compress(stack(blocks)), rank)
            state.pop(layer + BACKGROUND_A, None)
            state.pop(layer + BACKGROUND_B, None)
            state |= write_product(layer, _filled(head, rank)) | write_background(layer, tail)
        return state

    def _rest(self, state: Arrays, layer: str, rank: int | None) -> list[Product]:
        """What a hospital of this rank does not train of one layer."""
        held = background(state, layer)
        found = [] if held is None else [held]
        whole = product(state, layer)
        return [*found, split(whole, whole.rank if rank is None else rank)[1]]


def _filled(head: Product, rank: int) -> Product:
    """The same product with zero columns up to ``rank``."""
    missing = rank - head.rank
    left = torch.cat([head.left, head.left.new_zeros(head.left.shape[0], missing)], 1)
    right = torch.cat([head.right, head.right.new_zeros(missing, head.right.shape[1])], 0)
    return Product(left, right)
