"""Encodings of an update by name: how many bits a value takes and how large its blocks are.

An encoding is public post-processing of values that are already noised, so it costs no privacy.
Knows no torch, so that a study file can be checked without it; the mathematics is in ``rounding``.
"""

from __future__ import annotations

from enum import StrEnum

from wardround.privacy.errors import BadInput
from wardround.privacy.tables import nearest


class Encoding(StrEnum):
    """How the values of an update are written."""

    FP32 = "fp32"
    BF16 = "bf16"
    INT8 = "int8"
    INT4 = "int4"

    @property
    def levels(self) -> int:
        """Steps on either side of zero; 0 where values are not written as steps."""
        return {Encoding.INT8: 127, Encoding.INT4: 7}.get(self, 0)

    @property
    def block(self) -> int:
        """How many neighbouring values share one scale; 0 where there is none."""
        return {Encoding.INT8: 256, Encoding.INT4: 64}.get(self, 0)

    def size_bytes(self, count: int) -> int:
        """What ``count`` values of one array take, scales included, headers not."""
        if self is Encoding.FP32:
            return 4 * count
        if self is Encoding.BF16:
            return 2 * count
        values = count if self is Encoding.INT8 else (count + 1) // 2
        return values + 2 * -(-count // self.block)


def find_encoding(name: str) -> Encoding:
    """The encoding called ``name``; ``BadInput`` suggests the nearest when there is none."""
    try:
        return Encoding(name)
    except ValueError as error:
        raise BadInput(
            f"[strategy] encoding is {name!r}: no such encoding{nearest(name, [*Encoding])}"
        ) from error
