"""Dense layers: ``nn.Linear``, with or without bias, either of them frozen or not.

The per-unit weight gradient is the outer product of output gradient and input, summed over the
unit's rows and positions; that of the bias is the output gradient summed likewise.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from wardround.client.engine.kinds.registry import Forward, register
from wardround.client.engine.sink import Sink


class _LinearNode(torch.autograd.Function):
    """``x W^T + b`` whose backward pass leaves weight gradients in the sink."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: nn.Parameter,
        bias: nn.Parameter | None,
        layer: nn.Linear,
        sink: Sink,
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.layer, ctx.sink = layer, sink
        return functional.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        layer: nn.Linear = ctx.layer
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        if wants_weight:
            ctx.sink.outer(layer.weight, gradient, x)
        if wants_bias:
            per_row = gradient.reshape(len(gradient), -1, gradient.shape[-1]).sum(1)
            ctx.sink.rows(layer.bias, per_row)
        back = gradient.to(layer.weight.dtype) @ layer.weight if wants_x else None
        return back, None, None, None, None


@register(nn.Linear)
def linear(module: nn.Linear, sink: Sink) -> Forward:
    """A dense layer through one node."""

    def forward(x: Tensor) -> Tensor:
        sink.ran(module.weight, module.bias)
        result: Tensor = _LinearNode.apply(  # type: ignore[no-untyped-call]
            x, module.weight, module.bias, module, sink
        )
        return result

    return forward
