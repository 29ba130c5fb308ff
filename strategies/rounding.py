"""Stochastic rounding to few bits: bfloat16, and whole steps of a scale that a block shares.

Every value is rounded up or down with the probability that makes the result right on average, so
the mean over hospitals gains from each of them and no error builds up over rounds. Scales are
bfloat16, so that step times scale is exact in float32. The draws are an argument.
Sources: Gupta et al. (2015), "Deep learning with limited numerical precision", section 3; Alistarh
et al. (2017), QSGD, section 3.1, with the largest value of a block in place of the norm.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from wardround.privacy.stream import SecureStream

_EXPONENT = 0x7F800000  # float32's exponent bits: all set means infinite or not a number
_LOW = 0xFFFF  # the half of a float32's bits that bfloat16 drops
_NIBBLE_ZERO = 8  # how step 0 is written in four bits


def round_to_bfloat16(values: Tensor, stream: SecureStream) -> Tensor:
    """``values`` in bfloat16, the dropped bits rounded up with the probability they stand for.

    The error is below 2**-7 of each value. A value that would become infinite is cut instead.

    Args:
        values: Finite float32, any shape.
        stream: Draws 16 bits a value.
    """
    bits = values.contiguous().view(torch.int32)
    draws = torch.from_numpy(stream.words(-(-bits.numel() // 4)).view("<u2").astype("<i4"))
    rounded = bits + draws[: bits.numel()].view(bits.shape)
    overflows = (rounded & _EXPONENT) == _EXPONENT
    kept = torch.where(overflows, bits, rounded) & ~_LOW
    return kept.view(torch.float32).to(torch.bfloat16)


def round_to_steps(
    values: Tensor, levels: int, block: int, stream: SecureStream
) -> tuple[Tensor, Tensor]:
    """Whole steps of a scale for each block of neighbouring values.

    A block's scale is its largest magnitude over ``levels``, rounded up to bfloat16 (by less than
    1 %), so every step lies within ``levels`` and the error of each value is below one scale.

    Args:
        values: Finite float32, any shape.
        levels: Most steps on either side of zero, 127 at most.
        block: How many values of the flattened array share a scale.
        stream: Draws 32 bits a value.

    Returns:
        Steps, int8, shape ``(values,)``; scales, bfloat16, shape ``(blocks,)``, 0 where all is 0.
    """
    count = values.numel()
    blocks = pad(values.flatten().double(), (0, -count % block)).view(-1, block)
    scales = _round_up(blocks.abs().amax(dim=1) / levels) if count else blocks.new_empty(0)
    divisors = torch.where(scales == 0, 1.0, scales)
    draws = torch.from_numpy(stream.words(-(-blocks.numel() // 2)).view("<u4").astype("<f8"))
    offsets = draws[: blocks.numel()].view(blocks.shape) * 2.0**-32
    steps = torch.floor(blocks / divisors[:, None] + offsets)
    return steps.to(torch.int8).flatten()[:count], scales.to(torch.bfloat16)


def from_steps(steps: Tensor, scales: Tensor, block: int) -> Tensor:
    """Values, float32, shape ``(values,)``: each step times its block's scale, exactly."""
    values = steps.float()
    whole = len(values) // block * block
    factors = scales.float()
    values[:whole].view(-1, block).mul_(factors[: whole // block, None])
    if whole < len(values):
        values[whole:].mul_(factors[-1])
    return values


def pack_nibbles(steps: Tensor) -> Tensor:
    """Two steps of -7 to 7 in each byte, the first in the low half; an odd end is filled with 0."""
    nibbles = pad(steps + _NIBBLE_ZERO, (0, len(steps) % 2), value=_NIBBLE_ZERO).to(torch.uint8)
    return nibbles[0::2] | (nibbles[1::2] << 4)


def unpack_nibbles(packed: Tensor, count: int) -> Tensor:
    """The first ``count`` steps of ``pack_nibbles``, int8; damaged bytes give a step of -8."""
    halves = torch.stack((packed & 0xF, packed >> 4), dim=1).flatten()[:count]
    return halves.to(torch.int8) - _NIBBLE_ZERO


def _round_up(values: Tensor) -> Tensor:
    """The least bfloat16 values not below these, which are float64 and not negative."""
    nearest = values.to(torch.bfloat16)
    above = (nearest.view(torch.int16) + 1).view(torch.bfloat16)
    return torch.where(nearest.double() < values, above, nearest).double()
