"""Losses over a query's list of scores: listwise softmax, RankNet, pointwise.

Pure functions of one list each; lists of a batch are rows of one table and never mix. Sources:
listwise softmax with temperature and its sum with next-token term and difference penalty: Zhang et
al. (2024), TSARankLLM, section 3.3 and released ``sft.py``; RankNet: Burges et al. (2005), eq. 3.
"""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor
from torch.nn import functional


class Loss(StrEnum):
    """How a list of scores becomes one number."""

    LISTWISE = "listwise"
    RANKNET = "ranknet"
    POINTWISE = "pointwise"


class Score(StrEnum):
    """On which scale scores are compared.

    ``log-probability`` has gradients that survive clipping; ``probability`` is the published one.
    """

    LOG_PROBABILITY = "log-probability"
    PROBABILITY = "probability"


def table_of(scores: Tensor, list_of_row: Tensor, place: Tensor, lists: int) -> Tensor:
    """Scores as one row a list, shape ``(lists, longest)``; minus infinity where a list ends.

    Args:
        scores: Shape ``(rows,)``.
        list_of_row: Which list each score belongs to.
        place: Where in its list; the positive is at 0.
        lists: How many there are.
    """
    longest = int(place.max()) + 1 if len(place) else 1
    empty = scores.new_full((lists, longest), -torch.inf)
    return empty.index_put((list_of_row, place), scores)


def listwise(table: Tensor, temperature: float) -> Tensor:
    """``-log softmax(s / temperature)`` of the positive, shape ``(lists,)``."""
    return -functional.log_softmax(table / temperature, dim=1)[:, 0]


def ranknet(table: Tensor, temperature: float) -> Tensor:
    """Mean over negatives j of ``log(1 + exp(-(s_0 - s_j) / temperature))``, shape ``(lists,)``.

    Both items of every pair belong to one list, so no pair joins two records.
    """
    others = table[:, 1:]
    real = torch.isfinite(others)
    margin = (table[:, :1] - others.masked_fill(~real, 0.0)) / temperature
    return _mean(functional.softplus(-margin), real)


def pointwise(table: Tensor, temperature: float, likelihood: bool) -> Tensor:
    """Mean binary cross-entropy over a list, shape ``(lists,)``.

    Args:
        table: Scores.
        temperature: Divides logits; a likelihood is a probability already and is left alone.
        likelihood: Scores are logarithms of the probability of "relevant", not logits.
    """
    real = torch.isfinite(table)
    scores = table.masked_fill(~real, -1.0)
    if likelihood:
        # A query that is certain after a passage would make the other passages' loss infinite.
        yes, no = scores, torch.log1p(-scores.exp().clamp(max=1 - 1e-6))
    else:
        yes = functional.logsigmoid(scores / temperature)
        no = functional.logsigmoid(-scores / temperature)
    positive = torch.zeros_like(real)
    positive[:, 0] = True
    return _mean(-torch.where(positive, yes, no), real)


def list_losses(
    loss: Loss, score: Score, temperature: float, table: Tensor, likelihood: bool
) -> Tensor:
    """The chosen loss of each list, shape ``(lists,)``.

    Args:
        loss: Which one.
        score: On which scale; of likelihoods only.
        temperature: Divides scores before they are compared.
        table: Mean log-likelihoods, or a head's logits; the positive in column 0.
        likelihood: Which of the two.
    """
    if loss is Loss.POINTWISE:
        return pointwise(table, temperature, likelihood)
    if likelihood and score is Score.PROBABILITY:
        table = torch.where(torch.isfinite(table), table.exp(), table)
    return (listwise if loss is Loss.LISTWISE else ranknet)(table, temperature)


def reference_kl(logits: Tensor, reference: Tensor, real: Tensor) -> Tensor:
    """The difference penalty ``KL(p_reference || p)``, mean over each row's real places.

    The paper abbreviates it "DP"; it has nothing to do with privacy. The released code averages
    over padding too; here padding does not count.

    Args:
        logits: Of the model that trains, shape ``(rows, places, vocabulary)``.
        reference: Of the frozen stage-1 model, same shape.
        real: Places that count, shape ``(rows, places)``.

    Returns:
        Shape ``(rows,)``.
    """
    now, then = logits.log_softmax(-1), reference.log_softmax(-1)
    divergence = (then.exp() * (then - now)).sum(-1)
    return _mean(divergence, real)


def _mean(values: Tensor, real: Tensor) -> Tensor:
    """Mean of each row's real values; 0 where it has none."""
    return values.masked_fill(~real, 0.0).sum(1) / real.sum(1).clamp(min=1)
