"""Noise: the only way a value that depends on data becomes one that may leave.

``Noised`` carries the event that was charged for it. Whatever is computed from noised values alone
is noised too (post-processing, Dwork and Roth 2014, proposition 2.1): ``Noised.combine`` keeps the
sum of the events, so a model trained over many steps reaches the sender with its whole history.

A sum of floats shows in its last bits which values it was made from (Mironov 2012); therefore value
and noise are added in float64 and the result is rounded to a lattice far coarser than float64 and
far finer than the noise, as in Google's "Secure noise generation" (2020). Why that is enough, and
what it costs: ``docs/privacy.md``, section "Floating point".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import InitVar, dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from wardround.privacy._seal import SEAL, require_seal
from wardround.privacy.clipping import Clipped
from wardround.privacy.events import NOTHING, Event, Gaussian, PoissonSampled, compose
from wardround.privacy.reservation import Reservation
from wardround.privacy.stream import SecureStream
from wardround.privacy.units import Adjacency

Arrays = Mapping[str, Tensor]

LATTICE_BITS = 10  # the lattice step is the noise's standard deviation, over 2**10 to 2**11
_CHUNK = 2**16
_ROUNDING = 1e-9  # relative slack when noise multipliers are compared


@dataclass(frozen=True, eq=False)
class Noised:
    """A value that may leave the hospital, and the event that accounts for it."""

    value: Arrays
    event: Event
    seal: InitVar[object] = None

    def __post_init__(self, seal: object) -> None:
        require_seal(seal, "Noised")
        object.__setattr__(self, "value", MappingProxyType(dict(self.value)))

    def combine(self, other: Noised, function: Callable[[Arrays, Arrays], Arrays]) -> Noised:
        """``function`` of both values; it must look at nothing else that depends on data."""
        value = function(self.value, other.value)
        return Noised(value, compose(self.event, other.event), seal=SEAL)

    def then(self, function: Callable[[Arrays], Arrays]) -> Noised:
        """``function`` of the value; it must look at nothing else that depends on data."""
        return Noised(function(self.value), self.event, seal=SEAL)


def from_coordinator(arrays: Arrays) -> Noised:
    """What the coordinator sent is public to it, so sending it back costs nothing."""
    return Noised(arrays, NOTHING, seal=SEAL)


def release(noised: Noised, reservation: Reservation) -> Arrays:
    """The arrays themselves, for the sender and for nobody else: law 1 at run time.

    Raises:
        TypeError: Anything but a ``Noised``; mypy says so earlier.
        LedgerError: Its history costs more than was charged.
        ValueError: A value is not finite.
    """
    if not isinstance(noised, Noised):
        raise TypeError(f"only Noised values leave; this is {type(noised).__name__}")
    reservation.require_covers(noised.event)
    for name, array in noised.value.items():
        if not bool(torch.isfinite(array).all()):
            raise ValueError(f"{name} holds a value that is not finite; nothing leaves")
    return noised.value


def add_gaussian(
    clipped: Clipped,
    event: Event,
    noise_multiplier: float,
    adjacency: Adjacency,
    reservation: Reservation,
    stream: SecureStream,
) -> Noised:
    """The clipped sum plus Gaussian noise of ``noise_multiplier`` times its sensitivity.

    Args:
        clipped: The sum to protect; its sensitivity is read from it.
        event: What the reservation must have charged for this draw; its own noise multiplier must
            be the one that is drawn.
        noise_multiplier: Standard deviation in units of the sensitivity.
        adjacency: Which data sets count as neighbours.
        reservation: The ledger's proof of charge; one event of it is used up.
        stream: Where the noise comes from.

    Returns:
        Arrays in float32, on the lattice.

    Privacy: satisfies ``event`` at the granularity of ``clipped.unit``.
    """
    parts = [(clipped, noise_multiplier)]
    return add_joint_gaussian(parts, event, noise_multiplier, adjacency, reservation, stream)


def add_joint_gaussian(
    parts: Sequence[tuple[Clipped, float]],
    event: Event,
    noise_multiplier: float,
    adjacency: Adjacency,
    reservation: Reservation,
    stream: SecureStream,
) -> Noised:
    """Several sums over the same sample, each with its own noise, as one Gaussian mechanism.

    Scaled to unit noise, the sums are one vector of sensitivity ``sqrt(sum(1 / multiplier**2))``
    (Andrew et al. 2021, theorem 1); that must be what ``noise_multiplier`` promises.

    Args:
        parts: Each sum with its own noise multiplier; array names must differ.
        event: As for ``add_gaussian``, for all parts together.
        noise_multiplier: Of the whole.
        adjacency: As for ``add_gaussian``.
        reservation: As for ``add_gaussian``.
        stream: As for ``add_gaussian``.

    Raises:
        ValueError: The parts' noise is less than promised, or the event speaks of other noise.
        LedgerError: The event was not charged.
    """
    total = sum(multiplier**-2 for _, multiplier in parts) ** -0.5
    if total < noise_multiplier * (1 - _ROUNDING):
        raise ValueError(
            f"noise_multiplier is {noise_multiplier:g}, but the parts only give {total:g} together"
        )
    if _multiplier_of(event) != noise_multiplier:
        raise ValueError(f"noise_multiplier is {noise_multiplier:g}, but the event is {event}")
    reservation.take(event)
    noised: dict[str, Tensor] = {}
    for clipped, multiplier in parts:
        deviation = multiplier * clipped.sensitivity(adjacency)
        for names in _handfuls(clipped.value):
            arrays = [clipped.value[name] for name in names]
            noised |= dict(zip(names, _noise(arrays, deviation, stream), strict=True))
    return Noised(noised, event, seal=SEAL)


def pass_unprotected(clipped: Clipped, event: Event, reservation: Reservation) -> Noised:
    """The sum as it is, under an ``Unprotected`` charge; for data declared public or generated."""
    reservation.take(event)
    value = {name: array.float().cpu() for name, array in clipped.value.items()}
    return Noised(value, event, seal=SEAL)


def lattice_step(deviation: float) -> float:
    """The power of two that noised values are multiples of."""
    return 2.0 ** (math.floor(math.log2(deviation)) - LATTICE_BITS)


def _handfuls(arrays: Arrays) -> Iterator[list[str]]:
    """Names in order, small arrays several at a time: drawing for one has a price of its own."""
    held: list[str] = []
    filled = 0
    for name, array in arrays.items():
        if held and filled + array.numel() > _CHUNK:
            yield held
            held, filled = [], 0
        held.append(name)
        filled += array.numel()
    if held:
        yield held


def _noise(arrays: Sequence[Tensor], deviation: float, stream: SecureStream) -> Sequence[Tensor]:
    """Each array plus noise, on the lattice, float32 on the CPU; a cache's worth at a time."""
    if not (deviation > 0 and math.isfinite(deviation)):
        raise ValueError(f"the noise's standard deviation is {deviation}; the sum has no bound")
    step = lattice_step(deviation)
    flat = [array.detach().double().cpu().flatten() for array in arrays]
    values = flat[0] if len(flat) == 1 else torch.cat(flat)
    out = torch.empty(len(values), dtype=torch.float32)
    for start in range(0, len(values), _CHUNK):
        part = values[start : start + _CHUNK]
        noise = stream.normal(part.shape)
        # The step is a power of two, so scaling by it is exact.
        out[start : start + _CHUNK] = noise.mul_(deviation).add_(part).div_(step).round_() * step
    pieces = torch.split(out, [array.numel() for array in arrays])
    return [piece.view(array.shape) for piece, array in zip(pieces, arrays, strict=True)]


def _multiplier_of(event: Event) -> float:
    """The noise multiplier an event speaks of; not a number for events without noise."""
    match event:
        case Gaussian(noise_multiplier):
            return noise_multiplier
        case PoissonSampled(_, Gaussian(noise_multiplier)):
            return noise_multiplier
    return math.nan
