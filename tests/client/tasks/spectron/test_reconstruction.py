"""The reconstruction loss by hand; differences at a lag are not repeated differences."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.client.tasks.spectron.reconstruction import reconstruction_loss

Z = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [3.0, 0.0]]], dtype=torch.float64)
ALL = torch.tensor([3])


@pytest.mark.parametrize(("lags", "total"), [(1, 36.0), (2, 48.0)])
def test_hand_case(lags, total) -> None:
    # Values 4 + 10; across bins the same 14; lag 1 (1, 2): 3 + 5; lag 2 (3): 3 + 9. Differences of
    # differences would add 1 + 1 at second order and end at 38.
    found = reconstruction_loss(Z, torch.zeros_like(Z), ALL, lags)
    assert float(found) == total


def test_the_same_is_no_loss_and_a_constant_shift_costs_values_alone() -> None:
    assert float(reconstruction_loss(Z, Z, ALL, 2)) == 0.0
    shifted = reconstruction_loss(Z + 0.5, Z, ALL, 2)
    assert float(shifted) == pytest.approx(6 * (0.5 + 0.25))


def test_lags_beyond_the_row_are_left_out() -> None:
    assert float(reconstruction_loss(Z, torch.zeros_like(Z), ALL, 9)) == 48.0
    one = reconstruction_loss(Z[:, :1] + 1, Z[:, :1], torch.tensor([1]), 3)
    assert float(one) == pytest.approx(2 * 2.0)


@given(st.integers(1, 6), st.integers(0, 4), st.floats(-5, 5))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_padding_changes_nothing_at_any_border(frames, extra, filler) -> None:
    generator = torch.Generator().manual_seed(frames)
    found = torch.randn(1, frames, 3, generator=generator, dtype=torch.float64)
    wanted = torch.randn(1, frames, 3, generator=generator, dtype=torch.float64)
    rest = torch.full((1, extra, 3), filler, dtype=torch.float64)
    count = torch.tensor([frames])
    alone = reconstruction_loss(found, wanted, count, 3)
    padded = reconstruction_loss(
        torch.cat([found, rest], 1), torch.cat([wanted, -rest], 1), count, 3
    )
    torch.testing.assert_close(padded, alone)
