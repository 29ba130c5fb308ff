"""Tables: ``nn.Embedding``, which also carries PEFT's soft prompts, one virtual token a row of it.

The gradient of a unit is the output gradient added up at the entries its rows looked up. It is kept
dense, shape ``(units, entries, width)``: meant for prompts and small tables.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from wardround.client.engine.base import gradient_dtype
from wardround.client.engine.kinds.registry import Forward, register
from wardround.client.engine.sink import Sink


class _EmbeddingNode(torch.autograd.Function):
    """A look-up whose backward pass leaves the table's gradient in the sink."""

    @staticmethod
    def forward(
        ctx: Any, entries: Tensor, table: nn.Parameter, layer: nn.Embedding, sink: Sink
    ) -> Tensor:
        ctx.save_for_backward(entries)
        ctx.layer, ctx.sink = layer, sink
        return functional.embedding(entries, table)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, ...]:
        (entries,) = ctx.saved_tensors
        table, padding = ctx.layer.weight, ctx.layer.padding_idx
        rows, size = len(entries), len(table)
        flat = gradient.reshape(-1, gradient.shape[-1]).to(gradient_dtype(table))
        if padding is not None:
            flat = flat * (entries.reshape(-1, 1) != padding)
        row = torch.arange(rows, device=entries.device).unsqueeze(1)
        place = (row * size + entries.reshape(rows, -1)).reshape(-1)
        per_row = flat.new_zeros((rows * size, table.shape[1])).index_add_(0, place, flat)
        ctx.sink.rows(table, per_row.view(rows, *table.shape))
        return None, None, None, None


@register(nn.Embedding)
def embedding(module: nn.Embedding, sink: Sink) -> Forward | None:
    """A look-up through one node, unless the table couples rows or changes in the forward pass."""
    if module.scale_grad_by_freq or module.max_norm is not None or module.sparse:
        return None

    def forward(entries: Tensor) -> Tensor:
        sink.ran(module.weight)
        result: Tensor = _EmbeddingNode.apply(  # type: ignore[no-untyped-call]
            entries, module.weight, module, sink
        )
        return result

    return forward
