"""Normalisation over a position's own features: ``nn.LayerNorm`` and ``nn.RMSNorm``.

The normalising itself has nothing to train and stays with autograd; gain and shift become a node.
Batch normalisation couples rows and has no kind on purpose.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from wardround.client.engine.kinds.registry import Forward, register
from wardround.client.engine.sink import Sink


class _GainNode(torch.autograd.Function):
    """``x * gain + shift`` whose backward pass leaves both gradients in the sink."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gain: nn.Parameter, shift: nn.Parameter | None, layer: Any, sink: Sink
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.layer, ctx.sink = layer, sink
        return x * gain if shift is None else torch.addcmul(shift, x, gain)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        gain: Tensor = ctx.layer.weight
        wants_x, wants_gain, wants_shift = ctx.needs_input_grad[:3]
        if wants_gain:
            ctx.sink.rows(gain, _per_row(gradient * x, gain))
        if wants_shift:
            ctx.sink.rows(ctx.layer.bias, _per_row(gradient, gain))
        return gradient * gain if wants_x else None, None, None, None, None


def _per_row(product: Tensor, like: Tensor) -> Tensor:
    """Sum over everything between the row and the normalised axes."""
    return product.reshape(len(product), -1, *like.shape).sum(1)


@register(nn.LayerNorm)
def layer_norm(module: nn.LayerNorm, sink: Sink) -> Forward | None:
    """Layer normalisation with its gain and shift through one node."""
    if module.weight is None:
        return None

    def forward(x: Tensor) -> Tensor:
        sink.ran(module.weight, module.bias)
        normal = functional.layer_norm(x, module.normalized_shape, eps=module.eps)
        result: Tensor = _GainNode.apply(  # type: ignore[no-untyped-call]
            normal, module.weight, module.bias, module, sink
        )
        return result

    return forward


@register(nn.RMSNorm)
def rms_norm(module: nn.RMSNorm, sink: Sink) -> Forward | None:
    """Root-mean-square normalisation with its gain through one node."""
    if module.weight is None:
        return None

    def forward(x: Tensor) -> Tensor:
        sink.ran(module.weight)
        normal = functional.rms_norm(x, module.normalized_shape, eps=module.eps)
        result: Tensor = _GainNode.apply(  # type: ignore[no-untyped-call]
            normal, module.weight, None, module, sink
        )
        return result

    return forward
