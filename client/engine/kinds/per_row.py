"""Arrays handed out once a row: the gradient of a row's copy is that row's own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from wardround.client.engine.kinds.registry import Forward, register
from wardround.client.engine.per_row import PerRow
from wardround.client.engine.sink import Sink


class _PerRowNode(torch.autograd.Function):
    """Copies whose backward pass leaves their gradients in the sink."""

    @staticmethod
    def forward(ctx: Any, weight: nn.Parameter, rows: int, layer: PerRow, sink: Sink) -> Tensor:
        ctx.layer, ctx.sink = layer, sink
        return weight.expand(rows, *weight.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, ...]:
        ctx.sink.rows(ctx.layer.weight, gradient)
        return None, None, None, None


@register(PerRow)
def per_row(module: PerRow, sink: Sink) -> Forward:
    """Copies through one node."""

    def forward(rows: int) -> Tensor:
        sink.ran(module.weight)
        result: Tensor = _PerRowNode.apply(  # type: ignore[no-untyped-call]
            module.weight, rows, module, sink
        )
        return result

    return forward
