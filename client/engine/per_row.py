"""A bare parameter that every row of the batch gets a copy of: soft prompts, prefixes, queries.

A ``nn.Parameter`` used directly is one value for the whole batch, and no engine can tell afterwards
which row's gradient is which. ``PerRow`` hands it out once a row, so that each copy has a gradient.
"""

from __future__ import annotations

from torch import Tensor, nn


class PerRow(nn.Module):
    """One trainable array, read as one copy a row.

    >>> import torch
    >>> prompt = PerRow(torch.zeros(20, 64))
    >>> prompt(3).shape
    torch.Size([3, 20, 64])
    """

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(value)

    def forward(self, rows: int) -> Tensor:
        """Copies, shape ``(rows, *value.shape)``; they share memory until somebody writes."""
        return self.weight.expand(rows, *self.weight.shape)
