"""The pairwise ranking loss for click and conversion models, and the forms of it that are private.

An exposure that was taken up should score above one that was only looked at, and above one that was
not even looked at; each of the two terms has its own margin. The equations and margins of the paper
could not be read, so this is our reading of its abstract, and its defaults are ours. Source: Durmus
et al. (2024), "Pairwise ranking loss for multi-task learning in recommender systems" (PWiseR),
arXiv 2406.02163.

Which pairs exist decides what one unit can move, see ``Form``. Knows nothing of models or files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import torch
from torch import Tensor
from torch.nn import functional


class Surrogate(StrEnum):
    """What stands for "this pair is in the wrong order"."""

    HINGE = "hinge"
    SQUARED_HINGE = "squared-hinge"
    LOGISTIC = "logistic"
    SQUARE = "square"


class Score(StrEnum):
    """The scale on which exposures are compared."""

    PROBABILITY = "probability"
    LOGIT = "logit"


class Head(StrEnum):
    """Whose prediction is compared: of a click, or of a click and conversion."""

    CLICK = "click"
    CONVERSION = "conversion"


class Form(StrEnum):
    """Which pairs there are.

    ``within``: pairs inside one privacy unit. ``anchors``: each exposure against fixed public
    scores. ``square``: all pairs of the square surrogate, taken apart into a sum over exposures by
    means that train along. Pairs across blocks of sessions are ``within`` under the unit ``list``.
    A loss over pairs of different units has no bound: a removed negative moves every positive's
    gradient.
    """

    WITHIN = "within"
    ANCHORS = "anchors"
    SQUARE = "square"


@dataclass(frozen=True)
class Anchors:
    """Public scores that stand for the other side of a pair.

    Attributes:
        converted: Of what was taken up.
        clicked: Of what was only looked at.
        skipped: Of what was not looked at.
    """

    converted: float = 0.6
    clicked: float = 0.3
    skipped: float = 0.1


@dataclass(frozen=True)
class Shares:
    """Public shares of the three kinds of exposure; they need not be exact, but must be public.

    Attributes:
        converted: Taken up.
        clicked: Only looked at.
        skipped: Not looked at.
    """

    converted: float = 0.05
    clicked: float = 0.15
    skipped: float = 0.8

    def __post_init__(self) -> None:
        for name in ("converted", "clicked", "skipped"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1")


@dataclass(frozen=True)
class Pairwise:
    """The ``[task.pairwise]`` table.

    Attributes:
        strength: Factor of the pairwise part; 0 leaves binary cross-entropy alone.
        form: Which pairs there are.
        surrogate: Of a pair in the wrong order.
        score: The scale of comparison.
        head: The prediction that is compared.
        margin_click: By how much a conversion should lead a click.
        margin_skip: By how much a conversion should lead what was not looked at.
        weight_click: Of the first term.
        weight_skip: Of the second.
        anchors: For the form ``anchors``.
        shares: For the form ``square``.
    """

    strength: float = 0.5
    form: Form = Form.WITHIN
    surrogate: Surrogate = Surrogate.HINGE
    score: Score = Score.PROBABILITY
    head: Head = Head.CLICK
    margin_click: float = 0.1
    margin_skip: float = 0.3
    weight_click: float = 1.0
    weight_skip: float = 1.0
    anchors: Anchors = field(default_factory=Anchors)
    shares: Shares = field(default_factory=Shares)

    def __post_init__(self) -> None:
        for name in ("strength", "weight_click", "weight_skip"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        if not 0 <= self.margin_click <= self.margin_skip < float("inf"):
            raise ValueError(
                f"margin_click is {self.margin_click} and margin_skip {self.margin_skip}; "
                "expected 0 <= margin_click <= margin_skip"
            )
        if self.score is Score.PROBABILITY and self.margin_skip > 1:
            raise ValueError(
                f"margin_skip is {self.margin_skip}; probabilities differ by 1 at most"
            )
        if self.form is Form.SQUARE and self.surrogate is not Surrogate.SQUARE:
            raise ValueError("form 'square' needs surrogate 'square'")


def violation(surrogate: Surrogate, shortfall: Tensor) -> Tensor:
    """What a pair costs whose lead falls short of the margin by ``shortfall``, elementwise."""
    if surrogate is Surrogate.HINGE:
        return shortfall.clamp(min=0)
    if surrogate is Surrogate.SQUARED_HINGE:
        return shortfall.clamp(min=0).square()
    if surrogate is Surrogate.LOGISTIC:
        return functional.softplus(shortfall)
    return shortfall.square()


def unit_mean(values: Tensor, unit_of_value: Tensor, units: int) -> Tensor:
    """Mean of each unit's own values, shape ``(units,)``; 0 for a unit that has none."""
    total = values.new_zeros(units).index_add(0, unit_of_value, values)
    count = torch.bincount(unit_of_value, minlength=units).clamp(min=1)
    return total / count


def pairs_within(
    surrogate: Surrogate,
    margin: float,
    leading: tuple[Tensor, Tensor],
    trailing: tuple[Tensor, Tensor],
    units: int,
) -> Tensor:
    """Mean cost of each unit's own pairs, shape ``(units,)``; 0 for a unit without a pair.

    Args:
        surrogate: What a pair costs.
        margin: The lead that is wanted.
        leading: Scores that should be higher, and their units.
        trailing: Scores that should be lower, and their units.
        units: How many units there are.
    """
    one, other = (leading[1].unsqueeze(1) == trailing[1]).nonzero(as_tuple=True)
    cost = violation(surrogate, margin - (leading[0][one] - trailing[0][other]))
    return unit_mean(cost, leading[1][one], units)


def saddle_rows(
    margin: float,
    scores: Tensor,
    leading: Tensor,
    trailing: Tensor,
    values: Tensor,
    shares: tuple[float, float],
) -> Tensor:
    """All pairs of the square surrogate as a mean over exposures, shape ``(rows,)``.

    The mean of ``(margin - (p - n))²`` over all pairs is the least over ``a`` and ``b`` of the most
    over ``alpha`` of ``mean (p - a)² + mean (n - b)² + 2 (margin + alpha)(mean n - mean p) +
    margin² - alpha²``, reached at ``a = mean p``, ``b = mean n``, ``alpha = b - a``. Given the
    three numbers no exposure enters another's term. Source: Ying, Wen and Lyu (2016), "Stochastic
    online AUC maximization", theorem 1.

    Args:
        margin: The lead that is wanted.
        scores: Of every exposure, shape ``(rows,)``.
        leading: Which should score higher, bool.
        trailing: Which should score lower, bool.
        values: ``a``, ``b`` and ``alpha`` for every row, shape ``(rows, 3)``.
        shares: Shares of leading and trailing exposures among all.
    """
    middle, other, alpha = values.unbind(1)
    pull = 2 * (margin + alpha) * scores
    ahead = ((scores - middle).square() - pull) / shares[0]
    behind = ((scores - other).square() + pull) / shares[1]
    return leading * ahead + trailing * behind + margin**2 - alpha.square()
