"""Statistics as something to train: one number each, whose gradient is what a unit contributes.

A task that sends sums instead of weights gives each unit the loss ``-w · c``, where ``c`` is the
unit's contribution and ``w`` the statistics so far. Its gradient is ``-c`` whatever ``w`` is, so
one plain step of length 1 adds the clipped, noised mean contribution, and the very same engine,
ledger, noise and secure sums serve statistics and models alike.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wardround.client.pinned import WEIGHTS
from wardround.client.trainable import Trainable

NAME = "statistics"


class Statistics(nn.Module):
    """So many numbers, all zero at first."""

    def __init__(self, size: int) -> None:
        super().__init__()
        # In float64: what hospitals count should add up to the last vote.
        self.total = nn.Linear(size, 1, bias=False, dtype=torch.float64)
        nn.init.zeros_(self.total.weight)

    def forward(self, contributions: Tensor) -> Tensor:
        """Minus the product with each contribution, shape ``(rows,)``."""
        product: Tensor = self.total(contributions.to(self.total.weight))
        return -product.squeeze(1)

    @property
    def values(self) -> Tensor:
        """The numbers, shape ``(size,)``."""
        return self.total.weight.detach()[0]


def attach_statistics(model: nn.Module, size: int) -> Trainable:
    """A trainable of ``size`` numbers beside ``model``, which is not looked at.

    Raises:
        ValueError: ``size`` is less than 1.
    """
    if size < 1:
        raise ValueError(f"size is {size}; it must be 1 or more")
    # The library's own first values come from the global generator; the fork leaves that as it was.
    with torch.random.fork_rng(devices=[]):
        statistics = Statistics(size)
    (numbers,) = statistics.parameters()
    return Trainable(statistics, {NAME: numbers}, detach=lambda: model)


def contribution_losses(model: nn.Module, contributions: Tensor) -> Tensor:
    """Minus the product of statistics and each unit's contribution, shape ``(units,)``."""
    losses: Tensor = model(contributions.to(next(model.parameters()).device))
    return losses


def save_numbers(
    arrays: Mapping[str, Tensor],
    folder: Path,
    title: str,
    note: str,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Write numbers that are no adapter as safetensors; beside them what a reader must know.

    ``settings`` are what it takes to put them to use, written as JSON.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    values = {name: value.detach().cpu().contiguous() for name, value in arrays.items()}
    save_file(values, folder / WEIGHTS)
    if settings is not None:
        text = json.dumps(dict(settings), indent=2) + "\n"
        (folder / "settings.json").write_text(text, encoding="utf-8")
    (folder / "README.md").write_text(f"# {title}\n\n{note}\n", encoding="utf-8")
