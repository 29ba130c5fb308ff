"""Flower's simulation: what can be said without starting Ray."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from wardround.privacy.errors import WardroundError
from wardround.study.engines.ray import _with_all_nodes


def grid_that_fills(*sizes: int) -> Any:
    """Has so many nodes at each look; at the last size it stays."""
    left = list(sizes)
    return SimpleNamespace(get_node_ids=lambda: range(left.pop(0) if len(left) > 1 else left[0]))


def test_the_study_starts_once_every_node_is_there() -> None:
    """Asked at once, Flower's grid is empty: its server starts before Ray has workers."""
    slept: list[float] = []
    grid = grid_that_fills(0, 0, 3, 4)
    assert _with_all_nodes(grid, 4, clock=lambda: 0.0, sleep=slept.append) is grid
    assert len(slept) == 3


def test_nodes_that_never_come_end_the_study() -> None:
    hours = iter(range(0, 4000, 100))
    with pytest.raises(WardroundError, match="3 of 4 nodes came within 300 s"):
        _with_all_nodes(grid_that_fills(3), 4, clock=lambda: next(hours), sleep=lambda s: None)
