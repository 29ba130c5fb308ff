"""Labels by randomised response: each is kept with a probability, else drawn anew from all classes.

For tasks whose inputs may be seen but whose labels may not. What is protected is one label: the
neighbouring data sets differ in the label of one record, not in whether the record is there.
Sources: Warner (1965); Ghazi et al. (2021), "Deep learning with label differential privacy".
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from wardround.privacy._seal import SEAL
from wardround.privacy.events import RandomisedResponse
from wardround.privacy.noise import Noised
from wardround.privacy.reservation import Reservation
from wardround.privacy.stream import SecureStream


def randomise_labels(
    labels: Tensor,
    event: RandomisedResponse,
    reservation: Reservation,
    stream: SecureStream,
) -> Noised:
    """The labels after randomised response, under the name ``labels``.

    Args:
        labels: Shape ``(records,)``, integers in ``[0, event.classes)``.
        event: With what probability a label is kept; what the reservation must have charged.
        reservation: The ledger's proof of charge; one event of it is used up.
        stream: Where the coins come from.

    Raises:
        ValueError: A label outside the classes.
        LedgerError: The event was not charged.

    Privacy: satisfies ``event`` for each record's label.
    """
    if labels.dim() != 1 or bool(((labels < 0) | (labels >= event.classes)).any()):
        raise ValueError(f"labels must be one-dimensional and lie in [0, {event.classes})")
    reservation.take(event)
    keep = torch.from_numpy(stream.bernoulli(len(labels), event.keep_probability))
    fresh = torch.from_numpy(stream.below(event.classes, len(labels)))
    randomised = torch.where(keep, labels.cpu().long(), fresh)
    return Noised({"labels": randomised}, event, seal=SEAL)


def keep_probability(epsilon: float, classes: int) -> float:
    """The probability with which a label may be kept for this pure epsilon.

    >>> round(keep_probability(2.0, 3), 4)
    0.6805
    """
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise ValueError(f"epsilon is {epsilon}; it must be finite and greater than 0")
    return math.expm1(epsilon) / (math.exp(epsilon) + classes - 1)


def debiased_counts(labels: Tensor, event: RandomisedResponse) -> Tensor:
    """Unbiased estimate of how often each label occurred, shape ``(classes,)``, float64.

    Computed from noised labels alone, so it costs nothing more; estimates may be negative.
    """
    if event.keep_probability == 0:
        raise ValueError("keep_probability is 0; such labels say nothing about the data")
    seen = torch.bincount(labels, minlength=event.classes).double()
    uniform = (1 - event.keep_probability) * len(labels) / event.classes
    return (seen - uniform) / event.keep_probability
