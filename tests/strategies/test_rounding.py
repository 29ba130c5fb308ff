"""Stochastic rounding: right on average, never off by more than a step, exact to decode."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wardround.privacy.errors import BadInput
from wardround.privacy.stream import SecureStream
from wardround.strategies.encoding import Encoding, find_encoding
from wardround.strategies.rounding import (
    from_steps,
    pack_nibbles,
    round_to_bfloat16,
    round_to_steps,
    unpack_nibbles,
)

STEPPED = [(127, 256), (7, 64)]
FLOATS = st.floats(-(2.0**126), 2.0**126, width=32)


def stream(number: int = 0) -> SecureStream:
    return SecureStream(number.to_bytes(32, "big"))


def normals(count: int, seed: int) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


@given(st.lists(FLOATS, max_size=200), st.sampled_from(STEPPED), st.integers(0, 2**31))
@settings(deadline=None, max_examples=150)
def test_no_value_is_off_by_a_whole_step(
    numbers: list[float], kind: tuple[int, int], seed: int
) -> None:
    levels, block = kind
    values = torch.tensor(numbers, dtype=torch.float32)
    steps, scales = round_to_steps(values, levels, block, stream(seed))
    assert len(scales) == math.ceil(len(numbers) / block)
    assert bool((steps.abs() <= levels).all())
    scale = scales.double().repeat_interleave(block)[: len(values)]
    # In float64 a step of 7 bits times a scale of 8 is exact, and so is the float32 result.
    decoded = from_steps(steps, scales, block)
    assert torch.equal(decoded.double(), steps.double() * scale)
    off = (decoded.double() - values.double()).abs()
    assert bool(((off < scale) | (off == 0)).all())
    # The scale is the least bfloat16 that reaches the block's largest value: 2**-8 above at most,
    # or one subnormal (2**-133) where values are tiny.
    for start in range(0, len(values), block):
        largest = float(values[start : start + block].abs().max())
        found = float(scales[start // block])
        assert largest / levels <= found <= largest / levels * (1 + 2**-7) + 2**-133


@given(st.lists(FLOATS, max_size=100), st.integers(0, 2**31))
@settings(deadline=None, max_examples=100)
def test_bfloat16_is_one_of_the_two_neighbours(numbers: list[float], seed: int) -> None:
    values = torch.tensor(numbers, dtype=torch.float32)
    rounded = round_to_bfloat16(values, stream(seed))
    assert rounded.dtype is torch.bfloat16
    below = (values.view(torch.int32) & ~0xFFFF).view(torch.float32)
    above = (below.view(torch.int32) + 0x10000).view(torch.float32)
    exact = below == values
    assert bool((rounded.float() == below)[exact].all())
    assert bool(((rounded.float() == below) | (rounded.float() == above)).all())


def test_what_would_become_infinite_is_cut() -> None:
    largest = torch.finfo(torch.float32).max
    values = torch.full((1000,), largest)
    rounded = round_to_bfloat16(torch.cat((values, -values)), stream()).float()
    assert bool(torch.isfinite(rounded).all())
    assert float(rounded.abs().min()) == torch.finfo(torch.bfloat16).max


def mean_error_in_steps(values: Tensor, decoded: Tensor, step: Tensor) -> float:
    """Mean over all values of how far they came out too high, in units of their own step."""
    return float(((decoded.double() - values.double()) / step.double()).mean())


@pytest.mark.statistical
@pytest.mark.parametrize(("levels", "block"), STEPPED)
def test_rounding_to_steps_is_right_on_average(levels: int, block: int) -> None:
    """Hoeffding: each error lies in (-1, 1) steps, so the mean of n exceeds t with probability
    below 2·exp(-n·t²/2). With n = 100 repeats of 20 000 values, t = 0.0047 is crossed falsely
    with probability 1e-9. Rounding to nearest, the broken twin, is off by 0.25 steps.
    """
    # Every value a quarter of a step above a whole one; the scale is 2**-9 exactly.
    scale = 2.0**-9
    whole = torch.randint(-levels, levels, (20_000,), generator=torch.Generator().manual_seed(1))
    values = (whole + 0.25) * scale
    values[::block] = levels * scale
    bound = math.sqrt(2 * math.log(2 / 1e-9) / (100 * len(values)))
    errors = []
    for number in range(100):
        steps, scales = round_to_steps(values, levels, block, stream(number))
        assert bool((scales.float() == scale).all())
        decoded = from_steps(steps, scales, block)
        errors.append(mean_error_in_steps(values, decoded, torch.tensor(scale)))
    assert abs(sum(errors) / 100) < bound < 0.0047
    nearest = torch.round(values / scale) * scale
    assert abs(mean_error_in_steps(values, nearest, torch.tensor(scale))) > 0.2


@pytest.mark.statistical
def test_rounding_to_bfloat16_is_right_on_average() -> None:
    """As above; a quarter of a step is 0.25 · 2**-7 for values in [1, 2)."""
    values = torch.full((200_000,), 1 + 0.25 * 2**-7)
    bound = math.sqrt(2 * math.log(2 / 1e-9) / len(values))
    decoded = round_to_bfloat16(values, stream()).float()
    assert abs(mean_error_in_steps(values, decoded, torch.tensor(2.0**-7))) < bound
    assert mean_error_in_steps(values, values.bfloat16().float(), torch.tensor(2.0**-7)) < -0.2


@pytest.mark.statistical
def test_the_error_has_the_variance_of_a_coin() -> None:
    """A value that lies a fraction f above a step comes out with variance f·(1 - f) steps².

    Fraction 0.25: 0.1875. The sample variance of n = 200 000 bounded errors has a standard
    deviation below 1/sqrt(n); 7 of them are crossed falsely with probability below 1e-9.
    """
    values = torch.full((200_000,), 0.25)
    values[0] = 127.0
    steps, _ = round_to_steps(values, 127, len(values), stream())
    assert abs(float(steps[1:].double().var()) - 0.1875) < 7 / math.sqrt(len(values))


@given(st.lists(st.integers(-7, 7), max_size=33))
@settings(deadline=None, max_examples=60)
def test_nibbles_come_back(numbers: list[int]) -> None:
    steps = torch.tensor(numbers, dtype=torch.int8)
    packed = pack_nibbles(steps)
    assert len(packed) == (len(numbers) + 1) // 2
    assert torch.equal(unpack_nibbles(packed, len(numbers)), steps)


def test_the_first_value_lies_in_the_low_half() -> None:
    packed = pack_nibbles(torch.tensor([-7, 7, 0], dtype=torch.int8))
    assert packed.tolist() == [0xF1, 0x88]  # -7 is 1, 7 is 15, 0 and the filling are 8


def test_the_same_stream_rounds_the_same_way() -> None:
    values = normals(999, 4)
    assert torch.equal(round_to_bfloat16(values, stream(3)), round_to_bfloat16(values, stream(3)))
    first, second = (round_to_steps(values, 7, 64, stream(3))[0] for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, round_to_steps(values, 7, 64, stream(4))[0])


@pytest.mark.parametrize(
    ("encoding", "share"), [("fp32", 1.0), ("bf16", 0.5), ("int8", 0.252), ("int4", 0.133)]
)
def test_sizes(encoding: str, share: float) -> None:
    """8 bits and 16 shared by 256 are 25.2 % of 32; 4 bits and 16 shared by 64 are 13.3 %."""
    assert find_encoding(encoding).size_bytes(1 << 20) / (4 << 20) == pytest.approx(share, abs=5e-4)
    assert find_encoding(encoding).size_bytes(0) == 0
    assert Encoding.INT4.size_bytes(3) == 2 + 2


def test_an_unknown_encoding_suggests_one() -> None:
    with pytest.raises(BadInput, match=r"'int9'.*int8"):
        find_encoding("int9")
