"""Rows of small linear systems with skewed noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch


def exponential(rows, columns, seed):
    """Centred exponential noise: variance 1, third cumulant 2."""
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand((rows, columns), generator=generator, dtype=torch.float64).numpy()
    return -np.log1p(-uniform) - 1


@pytest.fixture(scope="session")
def noise():
    return exponential


@pytest.fixture(scope="session")
def rows_of():
    """Rows of a system whose weight from i to j is ``weights[i, j]``."""

    def draw(weights, rows, seed):
        size = len(weights)
        return exponential(rows, size, seed) @ np.linalg.inv(np.eye(size) - weights)

    return draw
