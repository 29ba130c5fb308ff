"""The lattice: arrays of numbers as one row of words modulo a power of two, and sums of them back.

Masks work on whole numbers. A value x becomes the nearest multiple of ``step``; K hospitals' sum
is then off by at most ``K * step / 2`` a coordinate, exactly as much and no more, because additions
modulo a power of two are exact. Values beyond ``limit`` steps are cut to it, so that K of them
cannot wrap around. Knows nothing of noise or keys.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wardround.privacy.errors import BadMessage
from wardround.privacy.mechanisms import bound

Words: TypeAlias = NDArray[np.unsignedinteger[Any]]
Shapes: TypeAlias = Mapping[str, torch.Size]

_EXACT = 2**53  # every whole number up to here is a float64


@dataclass(frozen=True)
class Lattice:
    """Whole multiples of ``step``, few enough that a sum of ``hospitals`` values fits in a word.

    Attributes:
        step: Distance of neighbouring values; a power of two where values come from floats.
        bits: Size of a word: 32 or 64.
        hospitals: The most values that are ever summed.
    """

    step: float
    bits: int
    hospitals: int

    def __post_init__(self) -> None:
        bound("step", self.step, 0 < self.step < math.inf, "finite and greater than 0")
        bound("hospitals", self.hospitals, self.hospitals >= 1, "1 or more")

    @property
    def limit(self) -> int:
        """The largest magnitude of one value, in steps: ``hospitals`` of them do not wrap."""
        return _limit(self.bits, self.hospitals)

    @property
    def largest(self) -> float:
        """The largest magnitude of one value."""
        return self.limit * self.step

    def error(self, hospitals: int) -> float:
        """How far a coordinate of a sum of this many rounded values is off, at most."""
        return hospitals * self.step / 2

    def round(self, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Each array in steps, int64; cut to the limit."""
        return {
            name: (array.double() / self.step).round().clamp(-self.limit, self.limit).long()
            for name, array in arrays.items()
        }

    def scale(self, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Arrays of steps as values, float64."""
        return {name: array.double() * self.step for name, array in arrays.items()}


def lattice_for(largest: float, bits: int, hospitals: int) -> Lattice:
    """The finest lattice of a power of two on which values up to ``largest`` never wrap."""
    bound("largest", largest, 0 < largest < math.inf, "finite and greater than 0")
    step = largest / _limit(bits, hospitals)
    return Lattice(math.ldexp(1.0, math.ceil(math.log2(step))), bits, hospitals)


def _limit(bits: int, hospitals: int) -> int:
    """The largest magnitude that fits ``hospitals`` times in a word, and exactly in a float64."""
    return min(((1 << bits - 1) - 1) // hospitals, _EXACT)


def to_words(steps: Mapping[str, Tensor], bits: int) -> Words:
    """All arrays of steps in one row, by name, modulo ``2**bits``."""
    row = torch.cat([steps[name].flatten() for name in sorted(steps)]).numpy()
    return row.astype(np.int64).view(np.uint64).astype(word_type(bits))


def from_words(words: Words, shapes: Shapes, bits: int) -> dict[str, Tensor]:
    """The arrays that ``to_words`` or a sum of its rows stand for, int64, around zero."""
    signed = words.view(f"<i{bits // 8}").astype(np.int64)
    row, start, arrays = torch.from_numpy(signed), 0, {}
    for name in sorted(shapes):
        stop = start + shapes[name].numel()
        arrays[name] = row[start:stop].view(shapes[name])
        start = stop
    return arrays


def word_type(bits: int) -> np.dtype[np.unsignedinteger[Any]]:
    """How numpy calls a word; little-endian, so that bytes mean the same everywhere."""
    return np.dtype(f"<u{bits // 8}")


def read_words(data: bytes, size: int, bits: int) -> Words:
    """A row of words from bytes; ``BadMessage`` when there are not ``size`` of them."""
    if len(data) != size * bits // 8:
        raise BadMessage(f"{len(data)} bytes of words; expected {size * bits // 8}")
    return np.frombuffer(data, word_type(bits))
