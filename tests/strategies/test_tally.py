"""Tally keeps sites apart and averages their rounds."""

from __future__ import annotations

import pytest
import torch

from wardround.strategies.base import Update
from wardround.strategies.tally import Tally, released

START = {"statistics": torch.zeros(1, 2)}


def change(*values: float) -> dict[str, torch.Tensor]:
    return {"statistics": torch.tensor([values])}


def test_sites_are_kept_apart_and_their_rounds_averaged() -> None:
    tally = Tally()
    state = tally.start(START)
    first = tally.begin(state, 1)
    first.add(Update("north", change(2.0, 0.0)))
    first.add(Update("south", change(4.0, 6.0)))
    state = first.finish()
    second = tally.begin(state, 2)
    second.add(Update("north", change(4.0, 2.0)))
    state = second.finish()
    sites = released(state)
    assert sites["north"]["statistics"].tolist() == [[3.0, 1.0]]  # (2 + 4) / 2 and (0 + 2) / 2
    assert sites["south"]["statistics"].tolist() == [[4.0, 6.0]]
    assert tally.deploy(state).arrays["statistics"].tolist() == [[3.5, 3.5]]


def test_every_round_asks_from_zero_with_one_plain_step() -> None:
    tally = Tally()
    aggregation = tally.begin(tally.start(START), 1)
    aggregation.add(Update("north", change(2.0, 0.0)))
    brief = tally.brief(aggregation.finish(), 2)
    assert brief.trains == ("statistics",)
    assert brief.arrays["statistics"].tolist() == [[0.0, 0.0]]
    assert brief.training == {"optimizer": "sgd", "learning_rate": 1.0, "momentum": 0.0}


def test_nothing_cannot_be_finished() -> None:
    aggregation = Tally().begin(START, 1)
    with pytest.raises(ValueError, match="no update"):
        aggregation.finish()
