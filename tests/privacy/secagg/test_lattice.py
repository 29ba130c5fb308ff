"""The lattice: stated error, no wrap-around, exact sums; and masks that come off again."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.privacy.errors import BadMessage
from wardround.privacy.secagg.lattice import (
    Lattice,
    from_words,
    lattice_for,
    read_words,
    to_words,
    word_type,
)
from wardround.privacy.secagg.masks import add_mask, remove_mask

KEY = bytes(range(32))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.floats(-8, 8, width=32), min_size=5, max_size=5), min_size=1, max_size=12),
    st.sampled_from([32, 64]),
)
def test_a_sum_is_off_by_half_a_step_a_hospital_at_most(
    values: list[list[float]], bits: int
) -> None:
    lattice = lattice_for(8.0, bits, len(values))
    shapes = {"a": torch.Size([2, 2]), "b": torch.Size([1])}
    total = np.zeros(5, word_type(bits))
    for row in values:
        numbers = torch.tensor(row)
        total += to_words(lattice.round({"b": numbers[4:], "a": numbers[:4].view(2, 2)}), bits)
    summed = lattice.scale(from_words(total, shapes, bits))
    flat = torch.cat([summed["a"].flatten(), summed["b"]])
    exact = torch.tensor(values, dtype=torch.float64).sum(0)
    # Beside the rounding to the lattice, float64 adds 12 numbers below 96: 2**-46 of slack.
    assert float((flat - exact).abs().max()) <= lattice.error(len(values)) + 2.0**-46


def test_the_error_is_reached_and_not_more() -> None:
    """Three values half a step above a point of the lattice: off by 3 halves, as stated."""
    lattice = lattice_for(1.0, 32, 3)
    value = torch.tensor([3.5 * lattice.step])
    steps = lattice.round({"a": value})["a"]
    assert abs(3 * float(steps) * lattice.step - 3 * float(value)) == lattice.error(3)


@pytest.mark.parametrize("hospitals", [3, 4, 6, 64, 1000])
@pytest.mark.parametrize("bits", [32, 64])
def test_the_largest_values_do_not_wrap(hospitals: int, bits: int) -> None:
    lattice = lattice_for(8.0, bits, hospitals)
    assert lattice.largest >= 8.0
    assert math.log2(lattice.step).is_integer()
    for sign in (1.0, -1.0):
        # Far beyond the limit, it is cut to it; exact sums of whole numbers are the oracle.
        steps = lattice.round({"a": torch.tensor([sign * 1e30])})
        assert abs(int(steps["a"])) == lattice.limit
        total = to_words(steps, bits) * np.array(hospitals, word_type(bits))
        summed = from_words(total, {"a": torch.Size([1])}, bits)
        assert int(summed["a"]) == hospitals * int(steps["a"])


def test_one_more_hospital_than_planned_would_wrap() -> None:
    """The broken twin: the limit is as large as it can be."""
    lattice = lattice_for(8.0, 32, 3)
    steps = {"a": torch.tensor([lattice.limit])}
    wrapped = to_words(steps, 32) * np.array(4, np.uint32)
    assert int(from_words(wrapped, {"a": torch.Size([1])}, 32)["a"]) < 0


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("size", [1, 1000, 2**16 + 3])
def test_masks_come_off_again(bits: int, size: int) -> None:
    words = np.arange(size, dtype=word_type(bits))
    before = words.copy()
    add_mask(words, KEY)
    assert not np.array_equal(words, before)
    remove_mask(words, KEY)
    assert np.array_equal(words, before)


def test_the_mask_is_the_key_stream_of_rfc_8439() -> None:
    """Test vector 1 of RFC 8439, appendix A.1: key, nonce and counter of zeros."""
    words = np.zeros(4, np.uint32)
    add_mask(words, bytes(32))
    assert words.tobytes().hex() == "76b8e0ada0f13d90405d6ae55386bd28"


def test_words_of_another_length_are_refused() -> None:
    assert read_words(b"\x01\x00\x00\x00", 1, 32)[0] == 1
    with pytest.raises(BadMessage, match="3 bytes of words; expected 4"):
        read_words(b"\x01\x00\x00", 1, 32)


@pytest.mark.parametrize(("step", "hospitals"), [(0.0, 3), (math.inf, 3), (1.0, 0)])
def test_a_lattice_that_cannot_be_is_refused(step: float, hospitals: int) -> None:
    with pytest.raises(ValueError, match=r"step|hospitals"):
        Lattice(step, 32, hospitals)


def test_a_range_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="largest"):
        lattice_for(0.0, 32, 3)
