"""The wire codec: what goes in comes out, and nothing else is accepted."""

from __future__ import annotations

import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from wardround.privacy.errors import BadMessage
from wardround.strategies.codec import decode, encode

NAMES = st.text("abcAB._0", min_size=1, max_size=12)
SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)
HEADERS = st.dictionaries(st.text(max_size=6), st.integers() | st.text(max_size=6), max_size=4)


@given(HEADERS, st.dictionaries(NAMES, SHAPES, max_size=4), st.integers(0, 2**31))
@settings(deadline=None, max_examples=60)
def test_round_trip(header: dict[str, object], shapes: dict[str, tuple[int, ...]], seed: int):
    generator = torch.Generator().manual_seed(seed)
    arrays = {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    block = encode(header, arrays)
    found, values = decode(block, "block")
    assert found == header
    assert values.keys() == arrays.keys()
    assert all(torch.equal(values[name], arrays[name]) for name in arrays)
    assert encode(header, dict(reversed(arrays.items()))) == block


def test_a_block_is_a_safetensors_file() -> None:
    block = encode({"round": 1}, {"a": torch.ones(2, 3)})
    assert torch.equal(load(block)["a"], torch.ones(2, 3))


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=200)
def test_arbitrary_bytes_are_refused(block: bytes) -> None:
    with pytest.raises(BadMessage):
        decode(block, "block")


@given(st.data())
@settings(deadline=None, max_examples=200)
def test_damaged_blocks_decode_or_are_refused(data: st.DataObject) -> None:
    block = bytearray(encode({"round": 1}, {"a": torch.ones(3), "b": torch.zeros(2, 2)}))
    place = data.draw(st.integers(0, len(block) - 1))
    block[place] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(block)))
    try:
        decode(bytes(block[:cut]), "block")
    except BadMessage:
        return
    assert cut == len(block)  # only a whole block can still be readable: the flip hit a value


def test_other_types_are_refused() -> None:
    with pytest.raises(ValueError, match="float64"):
        encode({}, {"a": torch.ones(2, dtype=torch.float64)})
    metadata = {"wardround-1": "{}"}
    with pytest.raises(BadMessage, match="int64"):
        decode(save({"a": torch.ones(2, dtype=torch.int64)}, metadata), "block")


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        (None, "header is damaged"),
        ({"wardround-9": "{}"}, "'wardround-9'"),
        ({"wardround-1": "{}", "more": "{}"}, "format"),
        ({"wardround-1": "[]"}, "not a JSON object"),
        ({"wardround-1": "{"}, "header is damaged"),
    ],
)
def test_other_formats_are_refused(metadata: dict[str, str] | None, says: str) -> None:
    with pytest.raises(BadMessage, match=says):
        decode(save({"a": torch.ones(1)}, metadata), "block")


def test_a_header_that_claims_gigabytes_is_refused() -> None:
    with pytest.raises(BadMessage, match="claims"):
        decode(struct.pack("<Q", 2**40) + b"{}", "block")
