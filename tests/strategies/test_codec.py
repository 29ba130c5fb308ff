"""The wire codec: what goes in comes out, and nothing else is accepted."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor

from wardround.privacy.errors import BadMessage
from wardround.privacy.stream import SecureStream
from wardround.strategies.codec import decode, encode, open_block
from wardround.strategies.encoding import Encoding

NAMES = st.text("abcAB._0", min_size=1, max_size=12)
SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)
HEADERS = st.dictionaries(st.text(max_size=6), st.integers() | st.text(max_size=6), max_size=4)
ENCODINGS = st.sampled_from([*Encoding])
# The step a value may be off by, as a share of the largest value of its block.
LARGEST_ERROR = {
    Encoding.FP32: 0.0,
    Encoding.BF16: 2**-7,
    Encoding.INT8: 0.008,
    Encoding.INT4: 0.15,
}


def stream() -> SecureStream:
    return SecureStream(bytes(32))


def arrays_of(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(shape, generator=generator) - 0.5 for name, shape in shapes.items()}


@given(HEADERS, st.dictionaries(NAMES, SHAPES, max_size=4), st.integers(0, 2**31), ENCODINGS)
@settings(deadline=None, max_examples=150)
def test_round_trip(
    header: dict[str, object], shapes: dict[str, tuple[int, ...]], seed: int, encoding: Encoding
) -> None:
    arrays = arrays_of(shapes, seed)
    block = encode(header, arrays, encoding, stream())
    found, values = decode(block, "block")
    assert found == header
    assert values.keys() == arrays.keys()
    for name, array in arrays.items():
        assert values[name].dtype is torch.float32
        assert values[name].shape == array.shape
        worst = float(array.abs().max()) if array.numel() else 0.0
        assert bool(((values[name] - array).abs() <= LARGEST_ERROR[encoding] * worst).all())
    assert encode(header, dict(reversed(arrays.items())), encoding, stream()) == block


def test_a_block_is_a_safetensors_file() -> None:
    block = encode({"round": 1}, {"a": torch.ones(2, 3)})
    assert torch.equal(load(block)["a"], torch.ones(2, 3))
    rounded = load(encode({}, {"a": torch.full((2, 3), 127.0)}, Encoding.INT8, stream()))
    assert torch.equal(rounded["a"], torch.full((2, 3), 127, dtype=torch.int8))
    assert rounded["__scales__"].tolist() == [1.0]


@pytest.mark.parametrize(
    ("encoding", "share"), [(Encoding.BF16, 0.51), (Encoding.INT8, 0.27), (Encoding.INT4, 0.15)]
)
def test_an_update_takes_its_share_of_float32(encoding: Encoding, share: float) -> None:
    """LoRA of rank 8 on 12 layers of 768 by 768, header and report (2 kB) included."""
    layers = {f"base_model.model.layers.{i}.attn": i for i in range(12)}
    arrays = arrays_of(
        {f"{name}.lora_A.weight": (8, 768) for name in layers}
        | {f"{name}.lora_B.weight": (768, 8) for name in layers},
        1,
    )
    header = {"report": "x" * 2000}
    whole = len(encode(header, arrays))
    assert len(encode(header, arrays, encoding, stream())) <= share * whole


def test_arrays_are_made_one_at_a_time_and_afresh() -> None:
    header, arrays = open_block(encode({"round": 1}, {"a": torch.ones(2), "b": torch.ones(3)}), "b")
    assert header == {"round": 1}
    assert dict(arrays.shapes) == {"a": torch.Size([2]), "b": torch.Size([3])}
    first = arrays["a"]
    first += 1
    assert torch.equal(arrays["a"], torch.ones(2))
    with pytest.raises(KeyError):
        arrays["c"]


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=200)
def test_arbitrary_bytes_are_refused(block: bytes) -> None:
    with pytest.raises(BadMessage):
        decode(block, "block")


@given(st.data(), ENCODINGS)
@settings(deadline=None, max_examples=200)
def test_damaged_blocks_decode_or_are_refused(data: st.DataObject, encoding: Encoding) -> None:
    arrays = {"a": torch.ones(3), "b": torch.zeros(2, 2)}
    block = bytearray(encode({"round": 1}, arrays, encoding, stream()))
    place = data.draw(st.integers(0, len(block) - 1))
    block[place] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(block)))
    try:
        decode(bytes(block[:cut]), "block")
    except BadMessage:
        return
    assert cut == len(block)  # only a whole block can still be readable: the flip hit a value


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=4,
)
SIZES = st.integers(-3, 9) | st.sampled_from([2**31, 2**40, 2**63, 2**64, -(2**63), 10**30])
FIT = SIZES | st.lists(SIZES, max_size=9) | st.sampled_from(["F32", "BF16", "I8", "U8", "F64", "a"])


def nodes(tree: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON tree."""
    keys = list(tree) if isinstance(tree, dict) else range(len(tree))
    inner = [tree[key] for key in keys if isinstance(tree[key], dict | list)]
    return [(tree, key) for key in keys] + [node for part in inner for node in nodes(part)]


def rebuilt(outer: dict[str, Any], document: Any, data: bytes) -> bytes:
    """A block with this header; ``allow_nan`` because an attacker's JSON may hold anything."""
    outer = {**outer, "__metadata__": {"wardround-2": json.dumps(document)}}
    head = json.dumps(outer).encode()
    return struct.pack("<Q", len(head)) + head + data


@given(st.data(), ENCODINGS)
@settings(deadline=None, max_examples=200)
def test_forged_headers_decode_or_are_refused(data: st.DataObject, encoding: Encoding) -> None:
    """Whatever is written into the header, only ``BadMessage`` comes out, and what is accepted
    is at most eight times as large as the block: nothing is allocated on a header's word.
    """
    arrays = {"a": torch.ones(3), "b": torch.ones(2, 2), "c": torch.zeros(0, 3)}
    block = encode({"round": 1}, arrays, encoding, stream())
    (length,) = struct.unpack("<Q", block[:8])
    outer = json.loads(block[8 : 8 + length])
    document = json.loads(outer.pop("__metadata__")["wardround-2"])
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(nodes({"o": outer, "d": document})[2:]))
        if data.draw(st.booleans()):
            container[key] = data.draw(FIT | JSON)
        elif isinstance(container, dict) and key in container:
            container[data.draw(NAMES)] = container.pop(key)
    forged = rebuilt(outer, document, block[8 + length :] + data.draw(st.binary(max_size=2)))
    try:
        _, values = decode(forged, "block")
    except BadMessage:
        return
    assert sum(4 * value.numel() for value in values.values()) <= 8 * len(forged)


def forged(encoding: str, tensors: dict[str, Tensor], **more: Any) -> bytes:
    document = {"encoding": encoding, "header": {}, **more}
    return save(tensors, {"wardround-2": json.dumps(document)})


ONE = torch.ones(1, dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("block", "says"),
    [
        (forged("fp32", {"a": torch.ones(2, dtype=torch.int64)}), "'I64'"),
        (forged("fp32", {"a": torch.ones(2, dtype=torch.bfloat16)}), "expected F32"),
        (forged("fp32", {"a": torch.ones(2)}, shapes={"a": [2]}), "laid out as fp32"),
        (forged("int9", {"a": torch.ones(2)}), "unknown encoding 'int9'"),
        (forged("int8", {"a": torch.ones(2, dtype=torch.int8)}), "laid out as int8"),
        (forged("int8", {"a": torch.ones(300, dtype=torch.int8), "__scales__": ONE}), "2 scales"),
        (forged("int8", {"a": torch.full((2,), -128, dtype=torch.int8), "__scales__": ONE}),
         "never written"),
        (forged("int8", {"a": torch.ones(2, dtype=torch.int8), "__scales__": -ONE}), "below 0"),
        (forged("int8", {"a": torch.ones(2, dtype=torch.int8), "__scales__": ONE / 0}),
         "not finite"),
        (forged("int4", {"a": torch.ones(2, dtype=torch.uint8), "__scales__": ONE},
                shapes={"a": [5]}), "other than 5 values"),
        (forged("int4", {"a": torch.ones(2, dtype=torch.uint8), "__scales__": ONE},
                shapes={"b": [4]}), "same names"),
        (forged("int4", {"a": torch.zeros(1, dtype=torch.uint8), "__scales__": ONE},
                shapes={"a": [2]}), "never written"),
    ],
)  # fmt: skip
def test_what_the_encoder_never_writes_is_refused(block: bytes, says: str) -> None:
    with pytest.raises(BadMessage, match=says):
        decode(block, "block")


def test_what_cannot_be_encoded() -> None:
    with pytest.raises(ValueError, match="float64"):
        encode({}, {"a": torch.ones(2, dtype=torch.float64)})
    with pytest.raises(ValueError, match="needs a stream"):
        encode({}, {"a": torch.ones(2)}, Encoding.INT8)
    with pytest.raises(ValueError, match="can be called"):
        encode({}, {"__scales__": torch.ones(2)})
    for value in (float("nan"), float("inf"), 3e38):
        with pytest.raises(BadMessage, match="not finite"):
            encode({}, {"a": torch.tensor([1.0, value])}, Encoding.BF16, stream())


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        (None, "header is damaged"),
        ({"wardround-1": "{}"}, "'wardround-1'"),
        ({"wardround-2": "{}", "more": "{}"}, "format"),
        ({"wardround-2": "[]"}, "header is damaged"),
        ({"wardround-2": '{"encoding":"fp32","header":[]}'}, "not a JSON object"),
        ({"wardround-2": "{"}, "header is damaged"),
    ],
)
def test_other_formats_are_refused(metadata: dict[str, str] | None, says: str) -> None:
    with pytest.raises(BadMessage, match=says):
        decode(save({"a": torch.ones(1)}, metadata), "block")


def raw(header: str, data: bytes = b"") -> bytes:
    head = header.encode()
    return struct.pack("<Q", len(head)) + head + data


ENTRY = '{"dtype":"F32","shape":[%s],"data_offsets":[%d,%d]}'


@pytest.mark.parametrize(
    ("block", "says"),
    [
        (struct.pack("<Q", 2**40) + b"{}", "claims"),
        (raw('{"a":1,"a":1}'), "damaged"),
        (raw('{"__metadata__":{},"a":' + ENTRY % ("2", 0, 4) + "}", bytes(4)), "do not hold"),
        (raw('{"__metadata__":{},"a":' + ENTRY % ("1", 4, 8) + "}", bytes(8)), "gap"),
        (raw('{"__metadata__":{},"a":' + ENTRY % ("1", 0, 4) + "}", bytes(8)), "end at byte"),
        (raw('{"__metadata__":{},"a":' + ENTRY % ("0,1099511627777", 0, 0) + "}"), "too large"),
        (raw('{"__metadata__":{},"a":' + ENTRY % ("true", 0, 4) + "}", bytes(4)), "other than"),
        (raw('{"__metadata__":{},"a":' + ENTRY % ("1,1,1,1,1,1,1,1,1", 0, 4) + "}"), "at most 8"),
        (raw("[" * 100_000), "damaged"),
    ],
)  # fmt: skip
def test_layouts_that_do_not_add_up_are_refused(block: bytes, says: str) -> None:
    with pytest.raises(BadMessage, match=says):
        decode(block, "block")
