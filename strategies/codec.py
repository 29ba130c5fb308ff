"""Arrays and a header as one block of bytes: what travels between coordinator and hospital.

The layout is a safetensors file whose metadata holds one JSON document, so a stored message opens
with any safetensors reader; ``docs/codec.md`` describes it. Decoding trusts nothing: sizes, types
and shapes are checked before an array is made, and arrays are made one at a time as they are asked
for. Knows nothing of who sends what, or why.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from wardround.privacy.errors import BadMessage
from wardround.privacy.signing import canonical
from wardround.privacy.stream import SecureStream
from wardround.strategies.encoding import Encoding
from wardround.strategies.layout import BYTES_OF_TYPE, Place, read_layout, require_shape
from wardround.strategies.rounding import (
    from_steps,
    pack_nibbles,
    round_to_bfloat16,
    round_to_steps,
    unpack_nibbles,
)

FORMAT = "wardround-2"
SCALES = "__scales__"  # the scales of all arrays, one after the other in order of name
_LARGEST = 1e38  # beyond it a rounded-up scale could overflow
_STORED_AS = {Encoding.FP32: "F32", Encoding.BF16: "BF16", Encoding.INT8: "I8", Encoding.INT4: "U8"}
_TORCH_TYPE = {"F32": torch.float32, "BF16": torch.bfloat16, "I8": torch.int8, "U8": torch.uint8}


def encode(
    header: Mapping[str, Any],
    arrays: Mapping[str, Tensor],
    encoding: Encoding = Encoding.FP32,
    stream: SecureStream | None = None,
) -> bytes:
    """One block of bytes; the same input gives the same bytes.

    Args:
        header: Any JSON.
        arrays: Float32 arrays by name.
        encoding: How their values are written.
        stream: Draws the rounding; not needed for ``fp32``.

    Privacy: rounding looks at the arrays alone, so it is post-processing where they are noised.

    Raises:
        ValueError: An array is not float32, or rounding has no stream.
        BadMessage: An array to be rounded holds a value that is not finite, or beyond 1e38.
    """
    for name, array in arrays.items():
        if array.dtype is not torch.float32:
            raise ValueError(f"array {name!r} is {array.dtype}; expected torch.float32")
        if name == SCALES:
            raise ValueError(f"no array can be called {SCALES!r}")
    document: dict[str, Any] = {"encoding": encoding.value, "header": header}
    ordered = {name: arrays[name].detach().cpu().contiguous() for name in sorted(arrays)}
    if encoding is not Encoding.FP32:
        if stream is None:
            raise ValueError(f"encoding {encoding.value} needs a stream to round with")
        if encoding is Encoding.INT4:
            document["shapes"] = {name: list(array.shape) for name, array in ordered.items()}
        ordered = _round(ordered, encoding, stream)
    # One key, because safetensors writes several in an order that changes from call to call.
    return bytes(save(ordered, {FORMAT: canonical(document).decode()}))


def decode(block: bytes, what: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and arrays of a block made by ``encode``, all arrays at once.

    Args:
        block: Bytes of unknown origin.
        what: What the bytes should be, for the error message.

    Raises:
        BadMessage: Truncated, of another format or version, or damaged.
    """
    header, arrays = open_block(block, what)
    return header, dict(arrays)


def open_block(block: bytes, what: str) -> tuple[dict[str, Any], StoredArrays]:
    """Header and arrays of a block; an array is decoded each time it is asked for.

    Raises:
        BadMessage: Truncated, of another format or version, or sizes that do not fit.
    """
    metadata, places = read_layout(block, what)
    document = _document(metadata, what)
    try:
        encoding = Encoding(document["encoding"])
    except ValueError as error:
        raise BadMessage(f"{what}: unknown encoding {document['encoding']!r}") from error
    shapes = _shapes(document, encoding, places, what)
    scales = _scale_places(places[SCALES], shapes, encoding.block) if encoding.block else {}
    return document["header"], StoredArrays(block, what, encoding, places, shapes, scales)


@dataclass(frozen=True)
class StoredArrays(Mapping[str, Tensor]):
    """The arrays inside a block, float32; none is kept after it was handed out.

    Attributes:
        block: The bytes, whose sizes have been checked.
        what: What they should be, for the error message.
        encoding: How values are written.
        places: Where each array lies.
        shapes: Shape of each array.
        scales: Where each array's scales lie, for encodings that have them.
    """

    block: bytes
    what: str
    encoding: Encoding
    places: Mapping[str, Place]
    shapes: Mapping[str, torch.Size]
    scales: Mapping[str, Place]

    def __getitem__(self, name: str) -> Tensor:
        """A fresh copy of one array; ``BadMessage`` when its values cannot be read."""
        shape = self.shapes[name]
        if self.encoding in (Encoding.FP32, Encoding.BF16):
            return self._copy(self.places[name]).float().view(shape)
        steps = self._copy(self.places[name])
        if self.encoding is Encoding.INT4:
            steps = unpack_nibbles(steps, shape.numel())
        if len(steps) and int(steps.min()) < -self.encoding.levels:
            raise BadMessage(f"{self.what}: array {name!r} holds a step that is never written")
        scales = self._copy(self.scales[name])
        if not bool(((scales >= 0) & torch.isfinite(scales)).all()):
            raise BadMessage(f"{self.what}: array {name!r} has a scale below 0 or not finite")
        return from_steps(steps, scales, self.encoding.block).view(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def _copy(self, place: Place) -> Tensor:
        """A flat copy of what is stored there."""
        # A copy, because torch takes no read-only memory; one array long, whatever the block.
        data = bytearray(memoryview(self.block)[place.start : place.stop])
        kind = _TORCH_TYPE[place.type]
        return torch.frombuffer(data, dtype=kind) if data else torch.empty(0, dtype=kind)


def _round(
    arrays: Mapping[str, Tensor], encoding: Encoding, stream: SecureStream
) -> dict[str, Tensor]:
    """The arrays as they are stored."""
    for name, array in arrays.items():
        if array.numel() and not float(array.abs().max()) <= _LARGEST:
            raise BadMessage(f"array {name!r} holds a value that is not finite, or beyond 1e38")
    if encoding is Encoding.BF16:
        return {name: round_to_bfloat16(array, stream) for name, array in arrays.items()}
    stored: dict[str, Tensor] = {}
    scales = [torch.empty(0, dtype=torch.bfloat16)]
    for name, array in arrays.items():
        steps, own = round_to_steps(array, encoding.levels, encoding.block, stream)
        packed = pack_nibbles(steps) if encoding is Encoding.INT4 else steps.view(array.shape)
        stored[name] = packed
        scales.append(own)
    return stored | {SCALES: torch.cat(scales)}


def _document(metadata: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The JSON document inside the metadata."""
    found = next(iter(metadata), None)
    if found != FORMAT or len(metadata) != 1:
        raise BadMessage(f"{what}: format {found!r}; this version reads {FORMAT!r}")
    try:
        document = json.loads(metadata[FORMAT])
    except (ValueError, TypeError, RecursionError) as error:
        raise BadMessage(f"{what}: the header is damaged") from error
    expected = {"encoding", "header"}
    if not isinstance(document, dict) or document.keys() - {"shapes"} != expected:
        raise BadMessage(f"{what}: the header is damaged")
    if not isinstance(document["header"], dict):
        raise BadMessage(f"{what}: the header is not a JSON object")
    return document


def _shapes(
    document: Mapping[str, Any], encoding: Encoding, places: Mapping[str, Place], what: str
) -> dict[str, torch.Size]:
    """Every array's shape, once all stored sizes have been found to fit them."""
    rounded = encoding.block > 0
    names = sorted(places.keys() - {SCALES})
    if (SCALES in places) != rounded or ("shapes" in document) != (encoding is Encoding.INT4):
        raise BadMessage(f"{what}: not laid out as {encoding.value}")
    for name in names:
        if places[name].type != _STORED_AS[encoding]:
            raise BadMessage(
                f"{what}: array {name!r} is {places[name].type}; expected {_STORED_AS[encoding]}"
            )
    if encoding is not Encoding.INT4:
        shapes = {name: torch.Size(places[name].shape) for name in names}
    else:
        shapes = _packed_shapes(document["shapes"], places, names, what)
    blocks = sum(_blocks(shape, encoding.block) for shape in shapes.values()) if rounded else 0
    if rounded and (places[SCALES].type, places[SCALES].shape) != ("BF16", (blocks,)):
        raise BadMessage(f"{what}: expected {blocks} scales")
    return shapes


def _packed_shapes(
    claimed: object, places: Mapping[str, Place], names: list[str], what: str
) -> dict[str, torch.Size]:
    """Shapes of arrays stored two values a byte, each found to fit its bytes."""
    if not isinstance(claimed, dict) or sorted(claimed) != names:
        raise BadMessage(f"{what}: shapes and arrays do not have the same names")
    shapes = {}
    for name in names:
        shape = require_shape(claimed[name], f"{what}: array {name!r}")
        count = torch.Size(shape).numel()
        if places[name].shape != ((count + 1) // 2,):
            raise BadMessage(f"{what}: array {name!r} holds other than {count} values")
        shapes[name] = torch.Size(shape)
    return shapes


def _scale_places(whole: Place, shapes: Mapping[str, torch.Size], block: int) -> dict[str, Place]:
    """Each array's part of the scales."""
    found, start = {}, whole.start
    for name in sorted(shapes):
        count = _blocks(shapes[name], block)
        stop = start + count * BYTES_OF_TYPE[whole.type]
        found[name], start = Place(whole.type, (count,), start, stop), stop
    return found


def _blocks(shape: torch.Size, block: int) -> int:
    """How many scales an array of this shape has."""
    return -(-shape.numel() // block)
