"""Units spread over micro-batches, and sums of outer products by unit."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from torch import Tensor, nn
from torch.nn import functional

from wardround.client.engine import FusedEngine, UnitAccumulator
from wardround.client.engine.sink import ONE_GROUP, Sink, group_rows, sum_rows


@pytest.mark.parametrize("cuts", [(6,), (2, 6), (1, 2, 3, 4, 5, 6)])
def test_micro_batches_add_up_to_the_whole(kit: Any, cuts: tuple[int, ...]) -> None:
    """The unit's loss is a sum over rows here, so its parts' gradients add up to its own."""
    case = kit.case("patient", kit.lora("llama"))

    def losses(rows: Tensor, index: Tensor, units: int) -> Tensor:
        logits = case.trainable.model(input_ids=case.ids[rows], use_cache=False).logits
        loss = functional.cross_entropy(logits[:, :-1].mT, case.ids[rows, 1:], reduction="none")
        return torch.zeros(units, dtype=loss.dtype).index_add(0, index, loss.sum(1))

    whole = UnitAccumulator(case.units)
    start = 0
    with FusedEngine(case.trainable) as attached:
        for stop in cuts:
            rows = torch.arange(start, stop)
            places, index = case.unit_of_row[rows].unique(return_inverse=True)
            units = len(places)
            part = attached.gradients(partial(losses, rows, index, units), index, units)
            whole.add(part, places.tolist())
            start = stop

    def alone(unit: int) -> Tensor:
        rows = (case.unit_of_row == unit).nonzero()[:, 0]
        return losses(rows, torch.zeros(len(rows), dtype=torch.int64), 1)[0]

    expected = kit.one_by_one(case.trainable, alone, case.units)
    assert kit.worst(whole.close(), expected) < 1e-9


def test_closing_empties_the_accumulator() -> None:
    whole = UnitAccumulator(2)
    whole.add({"w": torch.ones(1, 3)}, [1])
    torch.testing.assert_close(whole.close()["w"], torch.tensor([[0.0] * 3, [1.0] * 3]))
    whole.add({"w": torch.ones(1, 3)}, [0])
    torch.testing.assert_close(whole.close()["w"], torch.tensor([[1.0] * 3, [0.0] * 3]))


@pytest.mark.parametrize(
    ("per_unit", "places", "message"),
    [
        ({"w": torch.ones(2, 3)}, [0, 0], "different numbers"),
        ({"w": torch.ones(2, 3)}, [0, 2], "different numbers"),
        ({"w": torch.ones(2, 3)}, [0, -1], "different numbers"),
        ({"w": torch.ones(2, 3)}, [0], "2 contributions for 1 units"),
        ({"v": torch.ones(1, 3)}, [0], "differ in their parameters"),
    ],
)
def test_parts_that_do_not_fit(
    per_unit: dict[str, Tensor], places: list[int], message: str
) -> None:
    whole = UnitAccumulator(2)
    whole.add({"w": torch.ones(1, 3)}, [1])
    with pytest.raises(ValueError, match=message):
        whole.add(per_unit, places)


def test_a_negative_number_of_units() -> None:
    with pytest.raises(ValueError, match="units is -1"):
        UnitAccumulator(-1)


@given(
    unit_of_row=some.lists(some.integers(0, 3), min_size=1, max_size=9),
    out=some.integers(1, 5),
    width=some.integers(1, 5),
    calls=some.integers(1, 2),
)
def test_outer_products_by_unit(unit_of_row: list[int], out: int, width: int, calls: int) -> None:
    """Against one einsum a row, added up in a loop."""
    generator = torch.Generator().manual_seed(len(unit_of_row))
    parameter = nn.Parameter(torch.zeros(out, width, dtype=torch.float64))
    left = torch.randn(len(unit_of_row), 3, out, generator=generator, dtype=torch.float64)
    right = torch.randn(len(unit_of_row), 3, width, generator=generator, dtype=torch.float64)
    expected = torch.zeros(4, out, width, dtype=torch.float64)
    for row, unit in enumerate(unit_of_row):
        expected[unit] += calls * torch.einsum("to,ti->oi", left[row], right[row])

    sink = Sink({"w": parameter})
    sink.open(group_rows(torch.tensor(unit_of_row), 4))
    for _ in range(calls):
        sink.outer(parameter, left, right)
    torch.testing.assert_close(sink.close()["w"], expected, rtol=1e-12, atol=1e-12)


@given(some.lists(some.integers(0, 2), min_size=1, max_size=8))
def test_equal_runs_are_found_and_nothing_else(unit_of_row: list[int]) -> None:
    """Grouping by runs must give what grouping by index gives."""
    index = torch.tensor(unit_of_row)
    groups = group_rows(index, 3)
    per_row = torch.arange(len(unit_of_row) * 2.0).view(-1, 2)
    expected = torch.zeros(3, 2).index_add(0, index, per_row)
    torch.testing.assert_close(sum_rows(per_row, groups), expected)
    assert (groups.index is None) == (unit_of_row == sorted(unit_of_row) and equal(unit_of_row))


def equal(unit_of_row: list[int]) -> bool:
    return len({unit_of_row.count(unit) for unit in range(3)}) == 1


def test_one_group_takes_any_number_of_rows() -> None:
    parameter = nn.Parameter(torch.zeros(1, 2))
    sink = Sink({"w": parameter})
    sink.open(ONE_GROUP)
    sink.outer(parameter, torch.ones(3, 1), torch.ones(3, 2))
    sink.outer(parameter, torch.ones(2, 1), torch.ones(2, 2))
    torch.testing.assert_close(sink.close()["w"], torch.full((1, 1, 2), 5.0))
    with pytest.raises(RuntimeError, match="no gradients are being collected"):
        sink.close()
