"""``nn.Conv1d`` over time, as pre-nets of speech models use it: one group, zero padding.

A convolution is a dense layer on unfolded windows, so its per-unit weight gradient is the outer
product of output gradient and window, summed over time (Rochette et al. 2019, "Efficient
per-example gradient computations in convolutional neural networks", section 3).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.grad import conv1d_input

from wardround.client.engine.kinds.registry import Forward, register
from wardround.client.engine.sink import Sink


class _ConvNode(torch.autograd.Function):
    """A convolution whose backward pass leaves weight and bias gradients in the sink."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: nn.Parameter,
        bias: nn.Parameter | None,
        layer: nn.Conv1d,
        sink: Sink,
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.layer, ctx.sink = layer, sink
        return functional.conv1d(x, weight, bias, layer.stride, layer.padding, layer.dilation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        layer: nn.Conv1d = ctx.layer
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        if wants_weight:
            windows = _windows(x, layer)[..., : gradient.shape[-1]]
            per_row = torch.bmm(gradient, windows.transpose(1, 2))
            ctx.sink.rows(layer.weight, per_row.view(len(x), *layer.weight.shape))
        if wants_bias:
            ctx.sink.rows(layer.bias, gradient.sum(2))
        back = None
        if wants_x:
            settings = (layer.stride, layer.padding, layer.dilation)
            back = conv1d_input(  # type: ignore[no-untyped-call]
                x.shape, layer.weight, gradient, *settings
            )
        return back, None, None, None, None


def _windows(x: Tensor, layer: nn.Conv1d) -> Tensor:
    """What each output position sees, shape ``(rows, channels * kernel, positions)``."""
    assert not isinstance(layer.padding, str)
    return functional.unfold(
        x.unsqueeze(2),
        (1, *layer.kernel_size),
        dilation=(1, *layer.dilation),
        padding=(0, *layer.padding),
        stride=(1, *layer.stride),
    )


@register(nn.Conv1d)
def conv1d(module: nn.Conv1d, sink: Sink) -> Forward | None:
    """A convolution through one node, where its windows are plain ones."""
    plain_padding = module.padding_mode == "zeros" and not isinstance(module.padding, str)
    if module.groups != 1 or not plain_padding:
        return None

    def forward(x: Tensor) -> Tensor:
        if x.dim() != 3:
            raise ValueError(f"a trainable convolution needs (rows, channels, time), not {x.shape}")
        sink.ran(module.weight, module.bias)
        result: Tensor = _ConvNode.apply(  # type: ignore[no-untyped-call]
            x, module.weight, module.bias, module, sink
        )
        return result

    return forward
