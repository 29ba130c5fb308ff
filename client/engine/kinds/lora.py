"""LoRA layers of PEFT in one node, on any frozen base layer.

``y = x W0 + b + s (x A^T) B^T``: Hu et al. (2022), "LoRA", eq. 3, with the scaling on the narrow
side, where it costs ``rank`` numbers a position. The node keeps the input once, in the base's own
dtype, and the narrow product; nothing as wide as the layer's output. Narrow products are formed
rank first, ``A x^T`` and not ``x A^T``: CPU kernels do the same multiplications 2-5 times faster
with the short side as rows. On a frozen ``nn.Linear`` or transformers ``Conv1D`` the base is part
of the node. Any other base (4-bit, 8-bit, offloaded, dispatched over devices) is only called: its
own backward pass says what the input gets from it, and the node adds the factors' part. What fits
neither (dropout, several adapters at once) runs PEFT's own forward, whose factors ``lora_A`` and
``lora_B`` are dense layers with a kind of their own.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.pytorch_utils import Conv1D

from wardround.client.engine.base import has_own_forward
from wardround.client.engine.kinds.registry import Forward, register
from wardround.client.engine.sink import Sink


def _lora_types() -> list[type[nn.Module]]:
    """PEFT's LoRA layers; those on quantised bases exist where bitsandbytes is installed."""
    try:
        from peft.tuners.lora import bnb as quantised
    except ModuleNotFoundError:
        return [LoraLinear]
    found = (getattr(quantised, name, None) for name in ("Linear4bit", "Linear8bitLt"))
    return [LoraLinear, *(kind for kind in found if kind is not None)]


class _Layer:
    """One adapter of one LoRA layer: the frozen base beside its two factors."""

    def __init__(self, module: Any, adapter: str, sink: Sink) -> None:
        base = module.get_base_layer()
        self.base = base
        self.transposed = isinstance(base, Conv1D)
        self.a: nn.Parameter = module.lora_A[adapter].weight
        self.b: nn.Parameter = module.lora_B[adapter].weight
        self.scaling = module.scaling
        self.adapter = adapter
        self.sink = sink

    @property
    def inward(self) -> Tensor:
        """The base weight as ``(out, in)``."""
        weight: Tensor = self.base.weight
        return weight.t() if self.transposed else weight


class _LoraNode(torch.autograd.Function):
    """Base plus low-rank update whose backward pass leaves both factors' gradients in the sink."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, a: nn.Parameter, b: nn.Parameter, layer: _Layer) -> Tensor:
        scaling = layer.scaling[layer.adapter]
        flat = x.reshape(-1, x.shape[-1])
        weight, bias = layer.inward, layer.base.bias
        y = flat @ weight.t() if bias is None else torch.addmm(bias, flat, weight.t())
        low = (a @ flat.to(a.dtype).t()).mul_(scaling)  # (rank, positions): see module docstring
        if y.dtype == b.dtype:
            y.addmm_(low.t(), b.t())
        else:
            y.add_(low.t() @ b.t())
        ctx.save_for_backward(x, low)
        ctx.layer, ctx.scaling = layer, scaling
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, low = ctx.saved_tensors  # once: checkpointing without reentry gives them once
        layer: _Layer = ctx.layer
        flat = gradient.reshape(-1, gradient.shape[-1])
        inner = _factors_backward(ctx, flat, x, low)
        if inner is None or not ctx.needs_input_grad[0]:
            return None, None, None, None
        back = flat.to(layer.inward.dtype) @ layer.inward  # they differ under autocast only
        if back.dtype == inner.dtype:
            back.addmm_(inner.t(), layer.a)
        else:
            back.add_(inner.t() @ layer.a)
        return back.view_as(x), None, None, None


class _FactorsNode(torch.autograd.Function):
    """The low-rank update alone, for a base that is called beside it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, a: nn.Parameter, b: nn.Parameter, layer: _Layer) -> Tensor:
        scaling = layer.scaling[layer.adapter]
        low = (a @ x.reshape(-1, x.shape[-1]).to(a.dtype).t()).mul_(scaling)
        ctx.save_for_backward(x, low)
        ctx.layer, ctx.scaling = layer, scaling
        return (low.t() @ b.t()).view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, low = ctx.saved_tensors
        inner = _factors_backward(ctx, gradient.reshape(-1, gradient.shape[-1]), x, low)
        if inner is None or not ctx.needs_input_grad[0]:
            return None, None, None, None
        return (inner.t() @ ctx.layer.a).to(x.dtype).view_as(x), None, None, None


def _factors_backward(ctx: Any, flat: Tensor, x: Tensor, low: Tensor) -> Tensor | None:
    """Leave both factors' gradients in the sink; the narrow gradient, unless nobody needs it."""
    layer: _Layer = ctx.layer
    wants_x, wants_a, wants_b = ctx.needs_input_grad[:3]
    shape = x.shape[:-1]
    wide = flat.to(layer.b.dtype)
    if wants_b:
        layer.sink.outer(layer.b, wide.view(*shape, -1), low.t().view(*shape, -1))
    if not (wants_x or wants_a):
        return None
    inner = (layer.b.t() @ wide.t()).mul_(ctx.scaling)
    if wants_a:
        layer.sink.outer(layer.a, inner.t().view(*shape, -1), x)
    return inner


@register(*_lora_types())
def lora(module: Any, sink: Sink) -> Forward | None:
    """A LoRA layer through one node, or ``None`` where its parts must run one by one."""
    active = [name for name in module.active_adapters if name in module.lora_A]
    if len(active) != 1 or not _plain_factors(module, active[0]):
        return None
    layer = _Layer(module, active[0], sink)
    own = type(module).forward
    whole = _plain_base(module, active[0])

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        plain = not (args or kwargs or module.disable_adapters or module.merged)
        if not plain or module.active_adapters != active:
            kept: Tensor = own(module, x, *args, **kwargs)
            return kept
        sink.ran(layer.a, layer.b)
        if whole:
            result: Tensor = _LoraNode.apply(x, layer.a, layer.b, layer)  # type: ignore[no-untyped-call]
            return result
        # Out of place: a base may hand out a view that its own backward pass still needs.
        base: Tensor = layer.base(x)
        moved = x.to(layer.a.device)
        update: Tensor = _FactorsNode.apply(moved, layer.a, layer.b, layer)  # type: ignore[no-untyped-call]
        return base + update.to(base)

    return forward


def _plain_factors(module: Any, adapter: str) -> bool:
    """Whether the factors are exactly what the nodes compute, and the base is frozen."""
    base, a, b = module.base_layer, module.lora_A[adapter], module.lora_B[adapter]
    return (
        type(a) is nn.Linear
        and type(b) is nn.Linear
        and a.bias is None
        and b.bias is None
        and isinstance(module.lora_dropout[adapter], nn.Identity)
        and adapter not in module.lora_variant
        and not any(p.requires_grad for p in base.parameters())
        and not any(_watched(part) for part in (a, b))
    )


def _plain_base(module: Any, adapter: str) -> bool:
    """Whether the base is a matrix product that the node can do itself."""
    base = module.base_layer
    weight = module.lora_A[adapter].weight
    return (
        type(base) in (nn.Linear, Conv1D)
        and not _watched(base)
        and weight.device == base.weight.device
    )


def _watched(module: nn.Module) -> bool:
    """Whether somebody expects this module's own call to happen."""
    return bool(
        has_own_forward(module)
        or module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )
