"""The outside of a safetensors file, read without trust: where each array lies in a block of bytes.

Every size is checked against the bytes that are there, and nothing is allocated by what the bytes
claim. Stricter than the format asks: only the four types that ``codec`` writes, no name twice, no
gap. Source: the safetensors format (8 bytes of length, a JSON header, then the arrays).
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wardround.privacy.errors import BadMessage

BYTES_OF_TYPE = {"F32": 4, "BF16": 2, "I8": 1, "U8": 1}
_MAX_HEADER_BYTES = 16 * 2**20
_MAX_AXES = 8
_MAX_VALUES = 2**40  # far beyond any message, far below where a stride overflows


@dataclass(frozen=True)
class Place:
    """One array's place in a block.

    Attributes:
        type: safetensors' name of its type.
        shape: Its shape.
        start: First byte.
        stop: Byte after the last.
    """

    type: str
    shape: tuple[int, ...]
    start: int
    stop: int


def read_layout(block: bytes, what: str) -> tuple[dict[str, Any], dict[str, Place]]:
    """The metadata and every array's place.

    Raises:
        BadMessage: Anything but a whole file whose arrays fill it exactly.
    """
    if len(block) < 8:
        raise BadMessage(f"{what}: {len(block)} bytes are too few")
    (length,) = struct.unpack("<Q", block[:8])
    if length > min(len(block) - 8, _MAX_HEADER_BYTES):
        raise BadMessage(f"{what}: the header claims {length} bytes")
    try:
        header = json.loads(block[8 : 8 + length], object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise BadMessage(f"{what}: the header is damaged") from error
    metadata = header.pop("__metadata__", None) if isinstance(header, dict) else None
    if not isinstance(metadata, dict):
        raise BadMessage(f"{what}: the header is damaged")
    places = {
        name: _place(entry, 8 + length, f"{what}: array {name!r}") for name, entry in header.items()
    }
    end = 8 + length
    for place in sorted(places.values(), key=lambda place: (place.start, place.stop)):
        if place.start != end:
            raise BadMessage(f"{what}: the arrays leave a gap or overlap at byte {end}")
        end = place.stop
    if end != len(block):
        raise BadMessage(f"{what}: the arrays end at byte {end} of {len(block)}")
    return metadata, places


def require_shape(claimed: object, what: str) -> tuple[int, ...]:
    """A shape that an array can have, or ``BadMessage``."""
    if not isinstance(claimed, list) or len(claimed) > _MAX_AXES:
        raise BadMessage(f"{what}: its shape is not a list of at most {_MAX_AXES} sizes")
    if not all(type(size) is int and size >= 0 for size in claimed):
        raise BadMessage(f"{what}: its shape holds other than sizes")
    if math.prod(max(size, 1) for size in claimed) > _MAX_VALUES:
        raise BadMessage(f"{what}: its shape is too large")
    return tuple(claimed)


def _place(entry: object, base: int, what: str) -> Place:
    """One entry of the header; offsets count from ``base``."""
    if not isinstance(entry, Mapping) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise BadMessage(f"{what}: its entry is damaged")
    kind, offsets = entry["dtype"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in BYTES_OF_TYPE:
        raise BadMessage(f"{what}: type {kind!r} is not one that is sent")
    shape = require_shape(entry["shape"], what)
    if not isinstance(offsets, list) or [type(offset) for offset in offsets] != [int, int]:
        raise BadMessage(f"{what}: its place is not two numbers")
    start, stop = offsets
    if start < 0 or stop - start != math.prod(shape) * BYTES_OF_TYPE[kind]:
        raise BadMessage(f"{what}: {stop - start} bytes do not hold shape {shape} of {kind}")
    return Place(kind, shape, base + start, base + stop)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object without repeated names; ``ValueError`` otherwise."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name appears twice")
    return found
