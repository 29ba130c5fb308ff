"""What one unit can move: every form keeps its bound, the naive one is caught breaking it."""

from __future__ import annotations

import pytest
import torch

from wardround.client.hospital import group_units
from wardround.client.tasks.pwiser.formats import block_of
from wardround.privacy import Unit
from wardround.study.bench.pwiser import CLIP_NORM, Way, largest_move, neighbours

FEW = 400


@pytest.mark.parametrize("way", [Way.WITHIN, Way.ANCHORS, Way.SQUARE])
def test_one_unit_moves_the_clipped_sum_by_the_clip_norm_at_most(way) -> None:
    assert 0 < largest_move(way, FEW, seed=1) <= CLIP_NORM * (1 + 1e-9)


def test_one_session_of_a_block_moves_it_by_twice_the_clip_norm_at_most() -> None:
    # One block's vector is exchanged for another, and both are no longer than the clip norm.
    moved = largest_move(Way.BLOCKS, FEW, seed=1)
    assert 0 < moved <= 2 * CLIP_NORM * (1 + 1e-9)


def test_pairs_across_units_break_the_bound() -> None:
    """The broken twin: each conversion owns its pairs in the batch and is clipped by itself."""
    assert largest_move(Way.NAIVE, FEW, seed=1) > 2 * CLIP_NORM


def test_neighbours_differ_in_one_unit() -> None:
    whole, gone = next(iter(neighbours(1, seed=3)))
    assert 0 <= gone < whole.units
    assert torch.equal(whole.unit.unique(), torch.arange(whole.units))


def test_a_block_depends_on_its_own_session_alone(case) -> None:
    records = [record for unit in case("pwiser").units for record in unit]
    owned = [
        type(record)(
            record.id, {**record.owners, Unit.LIST: block_of(record.id, 3)}, record.content
        )
        for record in records
    ]
    blocks = group_units(owned, Unit.LIST)
    without = group_units(owned[1:], Unit.LIST)
    first = owned[0].owners[Unit.LIST]
    kept = [block for block in blocks if block[0].owners[Unit.LIST] != first]
    assert [b for b in without if b[0].owners[Unit.LIST] != first] == kept


def test_rows_of_a_unit_are_bounded_by_a_choice_of_its_own(case) -> None:
    one = case("pwiser")
    many = [one.units[3]]
    alone = one.task.collate(many, None, {**one.config, "max_rows": 2})
    beside = one.task.collate([*one.units[:1], *many], None, {**one.config, "max_rows": 2})
    assert len(alone.unit_of_row) == 2
    rows = beside.unit_of_row == 1
    assert torch.equal(beside.inputs["numerical"][rows], alone.inputs["numerical"])
