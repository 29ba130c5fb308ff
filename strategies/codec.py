"""Arrays and a header as one block of bytes: what travels between coordinator and hospital.

The layout is a safetensors file whose metadata holds one JSON document, so a stored message opens
with any safetensors reader. Decoding trusts nothing: sizes, types and shapes are checked before an
array is made. Knows nothing of who sends what, or why.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from wardround.privacy.errors import BadMessage
from wardround.privacy.signing import canonical

FORMAT = "wardround-1"
_MAX_HEADER_BYTES = 16 * 2**20


def encode(header: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> bytes:
    """One block of bytes; the same input gives the same bytes.

    Raises:
        ValueError: An array is not float32.
    """
    for name, array in arrays.items():
        if array.dtype is not torch.float32:
            raise ValueError(f"array {name!r} is {array.dtype}; expected torch.float32")
    # One key, because safetensors writes several in an order that changes from call to call.
    metadata = {FORMAT: canonical(header).decode()}
    ordered = {name: arrays[name].detach().cpu().contiguous() for name in sorted(arrays)}
    return bytes(save(ordered, metadata))


def decode(block: bytes, what: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and arrays of a block made by ``encode``.

    Args:
        block: Bytes of unknown origin.
        what: What the bytes should be, for the error message.

    Raises:
        BadMessage: Truncated, of another format or version, or an array that is not float32.
    """
    header = _read_header(block, what)
    try:
        arrays = load(block)
    except (SafetensorError, ValueError, RuntimeError, KeyError) as error:
        raise BadMessage(f"{what}: damaged arrays ({error})") from error
    for name, array in arrays.items():
        if array.dtype is not torch.float32:
            raise BadMessage(f"{what}: array {name!r} is {array.dtype}; expected torch.float32")
    return header, arrays


def _read_header(block: bytes, what: str) -> dict[str, Any]:
    """The JSON document inside the safetensors metadata."""
    if len(block) < 8:
        raise BadMessage(f"{what}: {len(block)} bytes are too few")
    (length,) = struct.unpack("<Q", block[:8])
    if length > min(len(block) - 8, _MAX_HEADER_BYTES):
        raise BadMessage(f"{what}: the header claims {length} bytes")
    try:
        metadata = json.loads(block[8 : 8 + length])["__metadata__"]
        found, header = next(iter(metadata)), json.loads(next(iter(metadata.values())))
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        StopIteration,
        RecursionError,
    ) as error:
        raise BadMessage(f"{what}: the header is damaged") from error
    if found != FORMAT or len(metadata) != 1:
        raise BadMessage(f"{what}: format {found!r}; this version reads {FORMAT!r}")
    if not isinstance(header, dict):
        raise BadMessage(f"{what}: the header is not a JSON object")
    return header
