"""FedAvg: the mean of the changes, whatever their order."""

from __future__ import annotations

import pytest
import torch

from wardround.strategies.base import Update
from wardround.strategies.fedavg import FedAvg


def test_adds_the_mean_change() -> None:
    start = {"a": torch.tensor([1.0, 2.0])}
    aggregation = FedAvg().begin(start, 1)
    aggregation.add(Update("east", {"a": torch.tensor([3.0, 0.0])}))
    aggregation.add(Update("west", {"a": torch.tensor([1.0, -4.0])}))
    assert torch.equal(aggregation.finish()["a"], torch.tensor([3.0, 0.0]))
    assert torch.equal(start["a"], torch.tensor([1.0, 2.0]))


def test_order_of_arrival_does_not_show() -> None:
    generator = torch.Generator().manual_seed(5)
    deltas = [{"a": torch.randn(500, generator=generator) * 10**k} for k in range(-3, 4)]
    results = []
    for order in (deltas, deltas[::-1], deltas[3:] + deltas[:3]):
        aggregation = FedAvg().begin({"a": torch.zeros(500)}, 1)
        for delta in order:
            aggregation.add(Update("east", delta))
        results.append(aggregation.finish()["a"])
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_nothing_to_aggregate_is_an_error() -> None:
    with pytest.raises(ValueError, match="no update"):
        FedAvg().begin({"a": torch.zeros(1)}, 1).finish()
