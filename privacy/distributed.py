"""Distributed noise: each hospital adds one share, and only a sum of several carries all of it.

What leaves is whole numbers: the clipped sum, brought to a lattice, plus discrete Gaussian noise of
``share_multiplier`` times its sensitivity there. Rounding moves each of d coordinates by half a
step at most, so two neighbouring sums differ by ``clip_norm / step + sqrt(d)`` steps at most; the
noise is scaled to that, so the plan's event holds as it stands. Nothing is cut after the noise:
modular sums wrap instead, which is post-processing of the sum and improbable (below 1e-30).
Sources: Kairouz, Liu and Steinke (2021), "The distributed discrete Gaussian mechanism", section 4,
with rounding to nearest instead of at random; Canonne, Kamath and Steinke (2020), theorem 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from wardround.privacy._seal import SEAL
from wardround.privacy.clipping import Clipped
from wardround.privacy.discrete import MOST_SIGMA, discrete_gaussian
from wardround.privacy.errors import PolicyRefused
from wardround.privacy.mechanisms import Mechanism, Mode, PrivacyPlan
from wardround.privacy.noise import Noised
from wardround.privacy.reservation import Reservation
from wardround.privacy.stream import SecureStream

LEAST_SIGMA = 2.0**6  # far above 3.2 steps, from where sums of shares are as good as one draw
_TAIL = 16.0  # a noise beyond so many standard deviations has probability 2 * exp(-128)
_CROWD = 4.0  # room for so many times the expected units, all pointing the same way


@dataclass(frozen=True)
class ShareLattice:
    """Where one hospital's share lives; the same for all hospitals of a round.

    Attributes:
        step: Distance of neighbouring points, in units of the clipped sum.
        sigma: Scale of one share's discrete Gaussian, in steps.
        limit: Coordinates of the sum are cut to this many steps before noise is added.
    """

    step: float
    sigma: float
    limit: int


def share_lattice(plan: PrivacyPlan, dimensions: int, hospitals: int, bits: int) -> ShareLattice:
    """The finest lattice on which the sum of all hospitals' shares fits into ``bits``.

    Args:
        plan: In mode distributed.
        dimensions: Coordinates of an update.
        hospitals: How many shares may be summed.
        bits: Size of a word.

    Raises:
        PolicyRefused: Words are too small for so many hospitals, dimensions or units.
    """
    if plan.mode is not Mode.DISTRIBUTED:
        raise ValueError(f"mode is {plan.mode.value}; only distributed noise has shares")
    multiplier, root = plan.share_multiplier, math.sqrt(dimensions)
    whole = plan.mechanism is Mechanism.WHOLE_UPDATE
    crowd = 1.0 if whole else max(_TAIL, _CROWD * plan.expected_units)
    # hospitals * largest / step + tail * multiplier * (clip_norm / step + root) fits into a word,
    # and so does the noise into what the sampler takes; both solved for the step.
    tail = _TAIL * math.sqrt(hospitals) * multiplier
    room = min(2.0 ** (bits - 1), 2.0**52) - 1 - tail * root
    ceiling = MOST_SIGMA - multiplier * root
    if room <= 0 or ceiling <= 0:
        raise PolicyRefused(f"{dimensions} coordinates with noise do not fit into {bits} bits")
    step = plan.clip_norm * max((hospitals * crowd + tail) / room, multiplier / ceiling)
    sigma = multiplier * (plan.clip_norm / step + root)
    if sigma < LEAST_SIGMA:
        raise PolicyRefused(
            f"in words of {bits} bits a share of noise would be {sigma:.1f} steps wide; "
            f"it must be {LEAST_SIGMA:g} or more: use 64 bits or fewer hospitals"
        )
    return ShareLattice(step, min(sigma, MOST_SIGMA), math.floor(plan.clip_norm * crowd / step))


def add_share(
    clipped: Clipped,
    plan: PrivacyPlan,
    lattice: ShareLattice,
    reservation: Reservation,
    stream: SecureStream,
) -> Noised:
    """The clipped sum in steps of the lattice, plus this hospital's share of the noise.

    Args:
        clipped: The sum to protect.
        plan: In mode distributed; its step event is what is charged.
        lattice: From ``share_lattice``.
        reservation: The ledger's proof of charge.
        stream: Where the noise comes from.

    Returns:
        int64, shapes as in ``clipped``.

    Privacy: on its own, satisfies Gaussian noise of ``plan.share_multiplier``. In a secure sum with
    the shares of others it satisfies ``plan.step_event``, if ``plan.honest_hospitals`` hospitals,
    this one included, add theirs and keep it to themselves.
    """
    plan.require_bound(clipped, plan.clip_norm)
    dimensions = sum(array.numel() for array in clipped.value.values())
    steps = clipped.sensitivity(plan.adjacency) / lattice.step + math.sqrt(dimensions)
    if lattice.sigma < plan.share_multiplier * steps * (1 - 1e-9):
        raise ValueError(f"sigma is {lattice.sigma:g}; {dimensions} coordinates call for more")
    reservation.take(plan.step_event)
    noised: dict[str, Tensor] = {}
    for name, array in clipped.value.items():
        bare = (array.detach().double().cpu() / lattice.step).round()
        bare = bare.clamp(-lattice.limit, lattice.limit).long()
        noise = discrete_gaussian(lattice.sigma, array.numel(), stream)
        noised[name] = bare + torch.from_numpy(noise).view(array.shape)
    return Noised(noised, plan.step_event, seal=SEAL)
