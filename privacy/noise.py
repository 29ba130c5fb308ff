"""Noise: the only way a value that depends on data becomes one that may leave.

``Noised`` carries the event that was charged for it. Whatever is computed from noised values alone
is noised too (post-processing, Dwork and Roth 2014, proposition 2.1): ``Noised.combine`` keeps the
sum of the events, so a model trained over many steps reaches the sender with its whole history.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import InitVar, dataclass

from torch import Tensor

from wardround.privacy._seal import SEAL, require_seal
from wardround.privacy.clipping import Clipped
from wardround.privacy.events import NOTHING, Event, Gaussian, compose
from wardround.privacy.reservation import Reservation
from wardround.privacy.stream import SecureStream
from wardround.privacy.units import Adjacency

Arrays = Mapping[str, Tensor]


@dataclass(frozen=True)
class Noised:
    """A value that may leave the hospital, and the event that accounts for it."""

    value: Arrays
    event: Event
    seal: InitVar[object] = None

    def __post_init__(self, seal: object) -> None:
        require_seal(seal, "Noised")

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
        event: What the reservation must have charged for this draw.
        noise_multiplier: Standard deviation in units of the sensitivity.
        adjacency: Which data sets count as neighbours.
        reservation: The ledger's proof of charge; one event of it is used up.
        stream: Where the noise comes from.

    Privacy: satisfies ``event`` at the granularity of ``clipped.unit``.
    """
    Gaussian(noise_multiplier)  # refuses a multiplier that is not finite and positive
    reservation.take(event)
    deviation = noise_multiplier * clipped.sensitivity(adjacency)
    noised = {
        name: (total.double().cpu() + deviation * stream.normal(total.shape)).float()
        for name, total in clipped.value.items()
    }
    return Noised(noised, event, seal=SEAL)


def pass_unprotected(clipped: Clipped, event: Event, reservation: Reservation) -> Noised:
    """The sum as it is, under an ``Unprotected`` charge; for data declared public or generated."""
    reservation.take(event)
    return Noised(clipped.value, event, seal=SEAL)
