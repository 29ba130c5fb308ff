"""Changes to combine."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

Changes = list[dict[str, Tensor]]


@pytest.fixture
def draw() -> Callable[..., Changes]:
    """Random changes of two arrays, 12 + 7 numbers, around a common one."""

    def draw(count: int, seed: int = 0, spread: float = 1.0) -> Changes:
        generator = torch.Generator().manual_seed(seed)
        common = torch.randn(19, generator=generator)
        rows = common + spread * torch.randn(count, 19, generator=generator)
        return [split(row) for row in rows]

    return draw


def split(row: Tensor) -> dict[str, Tensor]:
    """19 numbers as two arrays."""
    return {"a": row[:12].reshape(3, 4).float(), "b": row[12:].float()}
