"""What a robust rule is: all of a round's changes in, one change out.

A rule looks at single changes, so it can neither work on a secret sum nor drop a change as it
arrives. Rules that give each hospital one weight need only the inner products of the changes (the
Gram matrix, hospitals x hospitals); rules that work number by number need the numbers. Knows
nothing of noise, rounds or names: whoever sends is a position in a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from wardround.privacy.errors import WardroundError
from wardround.strategies.base import Arrays


class TooFewAnswers(WardroundError):
    """Fewer hospitals answered than the rule needs to hold against the malicious ones."""


@dataclass(frozen=True)
class Combination:
    """One round's changes as one change.

    Attributes:
        arrays: The change, float64.
        weights: What each change was multiplied by, or None when numbers were picked one by one.
    """

    arrays: dict[str, Tensor]
    weights: Tensor | None


class Rule(Protocol):
    """A robust way to combine."""

    name: ClassVar[str]

    @property
    def least(self) -> int:
        """Fewest changes with which the rule's bound holds."""

    def combine(self, changes: Sequence[Arrays]) -> Combination:
        """The changes as one; the order they are in does not matter.

        Raises:
            TooFewAnswers: There are fewer than ``least``.
        """


def require_enough(rule: Rule, changes: Sequence[Arrays]) -> None:
    """Raise ``TooFewAnswers`` unless the rule's bound holds for this many changes."""
    if len(changes) < rule.least:
        raise TooFewAnswers(
            f"robust rule {rule.name!r} needs {rule.least} answers to hold its bound; "
            f"{len(changes)} came"
        )


def stacked(changes: Sequence[Arrays], name: str) -> Tensor:
    """One array of all changes, float64, shape ``(changes, numbers)``."""
    return torch.stack([change[name].double().flatten() for change in changes])


def weighted_sum(changes: Sequence[Arrays], weights: Tensor) -> Combination:
    """The changes, each times its weight, added up; one array at a time."""
    return Combination(
        {
            name: (weights @ stacked(changes, name)).view(array.shape)
            for name, array in changes[0].items()
        },
        weights,
    )


def gram_matrix(changes: Sequence[Arrays]) -> Tensor:
    """Inner products of the changes, measured from their coordinate-wise median.

    Distances do not depend on the origin. The median as origin keeps honest changes short, so that
    one change of length 1e12 does not cost the others' distances their digits.

    Returns:
        float64, shape ``(changes, changes)``.
    """
    total = torch.zeros(len(changes), len(changes), dtype=torch.float64)
    for name in changes[0]:
        rows = stacked(changes, name)
        centred = rows - rows.median(0).values
        total += centred @ centred.T
    return total


def squared_distances(gram: Tensor) -> Tensor:
    """Squared distance of every pair, from inner products; shape as ``gram``."""
    squares = gram.diagonal()
    distances = squares[:, None] + squares[None, :] - 2 * gram
    return distances.clamp(min=0).fill_diagonal_(0)
