"""From traces to scale sets and rank sets: how strongly, and with how many columns, a layer adapts.

``published`` is the rule of the released code of Xu et al. (2024), "Editing factual knowledge and
explanatory ability of medical LLMs" (MedLaSA): alpha = clip(s alpha0, alpha0 // 2, 2 alpha0) and
rank = clip(ceil(s rank0), rank0 // 2, 2 rank0), with s an item's restored probability normalised
over layers. LoRA multiplies by alpha / rank, and since both follow s, they cancel for an item whose
profile is the average one. ``decoupled`` is ours: alpha0 / rank0 * max(s, floor), whatever the
rank. Pure arithmetic; knows no model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from wardround.client.tasks.editing.anatomy import Kind
from wardround.client.tasks.editing.tracing import Trace


class Normalisation(StrEnum):
    """How a profile is made comparable between facts."""

    MIN_MAX = "minmax"
    MEAN_STD = "meanstd"


class Rule(StrEnum):
    """How a normalised profile becomes a multiplier."""

    PUBLISHED = "published"
    DECOUPLED = "decoupled"


@dataclass(frozen=True)
class ScaleConfig:
    """How traces become multipliers.

    Attributes:
        rule: See the module's text.
        normalisation: Over the layers of one fact.
        floor: Least share of the full multiplier, under the decoupled rule; published: one half.
    """

    rule: Rule = Rule.DECOUPLED
    normalisation: Normalisation = Normalisation.MIN_MAX
    floor: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.floor <= 1:
            raise ValueError(f"floor is {self.floor}; it must be between 0 and 1")


def normalised(profile: Tensor, how: Normalisation) -> Tensor:
    """A profile over layers, shape ``(layers,)``, made comparable.

    A profile that is the same in every layer says nothing, and becomes 1 everywhere: plain LoRA.

    >>> normalised(torch.tensor([0.1, 0.3, 0.5]), Normalisation.MIN_MAX).tolist()
    [0.0, 0.5, 1.0]
    """
    values = profile.double()
    if how is Normalisation.MIN_MAX:
        low, high = values.min(), values.max()
        spread = high - low
        scaled = (values - low) / spread
    else:
        # The released code uses numpy's deviation, which divides by the number of layers.
        spread = values.std(correction=0)
        scaled = (values - values.mean()) / spread + 1
    return scaled if float(spread) > 0 else torch.ones_like(values)


def alpha_set(scales: Tensor, alpha: float) -> Tensor:
    """The published alpha of each layer, shape ``(layers,)``."""
    return (scales * alpha).clamp(alpha // 2, 2 * alpha)


def rank_set(scales: Tensor, rank: int) -> list[int]:
    """The published rank of each layer, at least 1."""
    raised = [math.ceil(value * rank) for value in scales.tolist()]
    return [max(1, min(max(value, rank // 2), 2 * rank)) for value in raised]


def mean_profiles(traces: Sequence[Trace]) -> dict[Kind, Tensor]:
    """Restored probability by layer, mean over facts: what ranks and located layers come from.

    Privacy: of public facts only; ranks shape what is sent, so they may not follow private records.
    """
    return {kind: torch.stack([one.profile(kind) for one in traces]).mean(0) for kind in Kind}


def factors(
    trace: Trace, config: ScaleConfig, alpha: float, rank: int, ranks: Mapping[Kind, Sequence[int]]
) -> Tensor:
    """What PEFT's own multiplier alpha / rank_of_layer is multiplied by for one fact.

    Args:
        trace: Of the fact.
        config: The rule.
        alpha: alpha0.
        rank: rank0.
        ranks: The rank each layer has, by kind.

    Returns:
        Shape ``(kinds, layers)``, kinds in the order of ``Kind``.
    """
    found = []
    for kind in Kind:
        scales = normalised(trace.profile(kind), config.normalisation)
        if config.rule is Rule.PUBLISHED:
            found.append(alpha_set(scales, alpha) / alpha)
        else:
            own = torch.tensor(list(ranks[kind]), dtype=scales.dtype)
            found.append(own / rank * scales.clamp(min=config.floor))
    return torch.stack(found)
