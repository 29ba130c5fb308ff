"""How far a predicted spectrogram is from the true one: values, and differences at a lag.

Differences are taken between frames and between bins that lie a lag apart, not again and again of
themselves. Source: Nachmani et al. (2024), Spectron, section 3.3.
"""

from __future__ import annotations

import torch
from torch import Tensor


def reconstruction_loss(found: Tensor, wanted: Tensor, frames: Tensor, lags: int) -> Tensor:
    """The loss of each row, summed over its own frames, shape ``(rows,)``.

    Args:
        found: Predicted frames, shape ``(rows, longest, bins)``.
        wanted: True ones.
        frames: How many of each row's frames count; the rest is padding.
        lags: Differences in time at lags of 1 to so many; a lag no row is long enough for adds 0.
    """
    gap = found - wanted
    counts = torch.arange(gap.shape[1], device=gap.device) < frames.unsqueeze(1)
    total = _sum(gap, counts) + _sum(gap[..., 1:] - gap[..., :-1], counts)
    for lag in range(1, min(lags, gap.shape[1] - 1) + 1):
        # The later frame of a pair decides: an earlier one of a row is never padding before it.
        total = total + _sum(gap[:, lag:] - gap[:, :-lag], counts[:, lag:])
    return total


def _sum(gap: Tensor, counts: Tensor) -> Tensor:
    """Absolute plus squared differences of the frames that count, added up row by row."""
    size = (gap.abs() + gap.square()).sum(-1)
    return (size * counts).sum(1)
