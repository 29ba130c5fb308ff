"""Statistics as something to train: one number each, whose gradient is what a unit contributes.

A task that sends sums instead of weights gives each unit the loss ``-w · c``, where ``c`` is the
unit's contribution and ``w`` the statistics so far. Its gradient is ``-c`` whatever ``w`` is, so
one plain step of length 1 adds the clipped, noised mean contribution, and the very same engine,
ledger, noise and secure sums serve statistics and models alike.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wardround.client.trainable import Trainable

NAME = "statistics"


class Statistics(nn.Module):
    """So many numbers, all zero at first."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.total = nn.Linear(size, 1, bias=False)
        nn.init.zeros_(self.total.weight)

    def forward(self, contributions: Tensor) -> Tensor:
        """Minus the product with each contribution, shape ``(rows,)``."""
        product: Tensor = self.total(contributions.to(self.total.weight))
        return -product.squeeze(1)

    @property
    def values(self) -> Tensor:
        """The numbers, shape ``(size,)``."""
        return self.total.weight.detach()[0]


def attach_statistics(size: int) -> Trainable:
    """A trainable of ``size`` numbers, beside no model at all.

    Raises:
        ValueError: ``size`` is less than 1.
    """
    if size < 1:
        raise ValueError(f"size is {size}; it must be 1 or more")
    # The library's own first values come from the global generator; the fork leaves that as it was.
    with torch.random.fork_rng(devices=[]):
        statistics = Statistics(size)
    (numbers,) = statistics.parameters()
    return Trainable(statistics, {NAME: numbers})
