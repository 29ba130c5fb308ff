"""What trains: a net, and for the square form the three numbers of each term beside it.

The numbers of a saddle are a layer on a constant, so that engines see what each row adds to their
gradient; ``alpha`` seeks the most where all else seeks the least, so its gradient is turned round.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wardround.client.statistics import save_numbers
from wardround.client.tasks.pwiser.columns import Columns
from wardround.client.tasks.pwiser.config import NetConfig
from wardround.client.tasks.pwiser.nets import Net, draw_values
from wardround.client.trainable import Trainable

_NUMBERS = 3  # a, b and alpha
_TERMS = 2
_TABLE_SEED = 0


class _Reversed(torch.autograd.Function):
    """The same values; the opposite gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return -gradients[0]


class Ranker(nn.Module):
    """A net of two predictions, and what the square form of the pairwise loss trains beside it."""

    def __init__(self, net: Net, square: bool) -> None:
        super().__init__()
        self.net = net
        self.saddle = nn.Linear(1, _TERMS * _NUMBERS, bias=False) if square else None

    def forward(self, categorical: Tensor, numerical: Tensor) -> Tensor:
        """Logits of a click and of a conversion among all exposures, shape ``(rows, 2)``."""
        logits: Tensor = self.net(categorical, numerical)
        return logits

    def saddle_values(self, rows: int) -> Tensor:
        """``a``, ``b`` and ``alpha`` of both terms for every row, shape ``(rows, 2, 3)``."""
        if self.saddle is None:
            raise ValueError("this net was made without a saddle")
        values = self.saddle(self.saddle.weight.new_ones(rows, 1)).view(rows, _TERMS, _NUMBERS)
        turned: Tensor = _Reversed.apply(values[..., 2:])  # type: ignore[no-untyped-call]
        return torch.cat([values[..., :2], turned], dim=-1)


def attach(
    model: nn.Module,
    columns: Columns,
    config: NetConfig,
    square: bool,
    generator: torch.Generator,
) -> Trainable:
    """A net beside ``model``, which is not looked at but for its type of numbers.

    Args:
        model: Given back by ``detach``.
        columns: What comes in.
        config: Kind and widths.
        square: Whether a saddle trains too.
        generator: Public; draws the first values.
    """
    # The library's own first values come from the global generator; the fork leaves that as it was.
    with torch.random.fork_rng(devices=[]):
        ranker = Ranker(Net(columns, config), square)
    draw_values(ranker, generator)
    if not config.train_embedding:
        # What does not travel must be the same at every house, whatever the study's seed.
        draw_values(ranker.net.features.table, torch.Generator().manual_seed(_TABLE_SEED))
    if ranker.saddle is not None:
        nn.init.zeros_(ranker.saddle.weight)
    some = next(model.parameters(), torch.zeros(()))
    ranker.to(device=some.device, dtype=some.dtype)
    ranker.net.features.table.requires_grad_(config.train_embedding)
    moving = {name: p for name, p in ranker.named_parameters() if p.requires_grad}
    return Trainable(ranker, moving, detach=lambda: model)


def save(
    trainable: Trainable,
    adapter: Mapping[str, Any],
    arrays: Mapping[str, Tensor],
    folder: Path,
    note: str,
) -> None:
    """Write the moving values, the frozen tables beside them, the settings and a model card."""
    save_numbers(arrays, folder, "Two predictions for click logs", note, adapter)
    state = trainable.model.state_dict()
    still = state.keys() - arrays.keys()
    frozen = {name: state[name].detach().cpu().contiguous() for name in still}
    if frozen:
        from safetensors.torch import save_file

        save_file(frozen, folder / "frozen.safetensors")
