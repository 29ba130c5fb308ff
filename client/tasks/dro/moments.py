"""Anchors from private queries: each adds bounded moments of its states; their noised sum leaves.

A query contributes, averaged over its conditions, its state, the products of the state's numbers,
and the state times how often it was answered and whether it is harmless; states are scaled to
length 1 at most. ``Statistics`` makes their sum a gradient, so that clip, noise and ledger are
those of every task and the release is charged like any other. Directions and probes are then
post-processing: eigenvectors of the noised covariance, and least squares instead of a logistic fit,
because that needs moments alone. Source for noised covariances: Dwork, Talwar, Thakurta and Zhang
(2014), "Analyze Gauss".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wardround.client.statistics import NAME, Statistics, attach_statistics
from wardround.client.tasks.base import Batch, Record
from wardround.client.tasks.dro.anchoring import anchors_of, conditions, sample
from wardround.client.tasks.dro.anchors import COMPONENTS, Anchors
from wardround.client.tasks.dro.config import DroConfig
from wardround.client.tasks.dro.frame import check_template
from wardround.client.tasks.dro.records import Query
from wardround.client.tasks.dro.refusals import refuses
from wardround.client.tasks.dro.splice import hidden_size, last_states
from wardround.client.tasks.rows import Row, pad, pad_token_id
from wardround.client.trainable import Trainable

_STEEPEST = 4.0  # a logistic curve's slope at the middle is a quarter of its weight


class Moments(nn.Module):
    """Statistics of states beside the frozen model that makes the states.

    Attributes:
        base: The model.
        statistics: The noised sums so far.
        radius: Longer states are shortened to it.
        hidden: Numbers of a state.
    """

    def __init__(self, base: nn.Module, radius: float) -> None:
        super().__init__()
        self.base = base
        self.radius = radius
        self.hidden = hidden_size(base)
        self.statistics = _statistics(base, moment_count(self.hidden))

    def forward(self, contributions: Tensor) -> Tensor:
        """Minus the product with each contribution, shape ``(rows,)``."""
        product: Tensor = self.statistics(contributions)
        return product

    def anchors(self) -> Anchors:
        """Anchors of the sums so far."""
        return anchors_of_moments(self.statistics.values.cpu(), self.hidden, self.radius)


def moment_count(hidden: int) -> int:
    """Numbers a query contributes."""
    return 3 * hidden + hidden * (hidden + 1) // 2 + 2


def attach_moments(base: nn.Module, tokenizer: Any, config: DroConfig) -> Trainable:
    """What trains when anchors are made: sums of moments.

    Raises:
        PolicyRefused: The chat template has another hash.
    """
    check_template(tokenizer, config.frame)
    model = Moments(base, config.anchors.radius)
    (numbers,) = model.statistics.parameters()
    return Trainable(model, {NAME: numbers}, detach=lambda: base)


def moments(states: Tensor, answered: Tensor, harmless: Tensor, radius: float) -> Tensor:
    """One query's contribution, shape ``(moment_count,)``; its length is at most the root of 6.

    Args:
        states: Of the query in each condition, shape ``(conditions, hidden)``.
        answered: How often it was answered in each, in [0, 1].
        harmless: 0 or 1, the same for all.
        radius: Longer states are shortened to it.

    Privacy: bounded whatever the query is; to be clipped and noised.
    """
    states = states.double() / radius
    states = states / states.norm(dim=1, keepdim=True).clamp(min=1)
    rows, columns = torch.tril_indices(states.shape[1], states.shape[1])
    scale = torch.where(rows == columns, 1.0, math.sqrt(2)).to(states)
    products = states[:, rows] * states[:, columns] * scale
    answered, harmless = answered.to(states)[:, None], harmless.to(states)[:, None]
    parts = [states, products, answered * states, harmless * states, answered, harmless]
    return torch.cat(parts, dim=1).mean(0)


def anchors_of_moments(values: Tensor, hidden: int, radius: float) -> Anchors:
    """Anchors of mean moments, however noisy.

    Args:
        values: Shape ``(moment_count,)``.
        hidden: Numbers of a state.
        radius: As the moments were made with.
    """
    pairs = hidden * (hidden + 1) // 2
    mean, products, with_answer, with_label, rates = torch.split(
        values.double(), [hidden, pairs, hidden, hidden, 2]
    )
    rows, columns = torch.tril_indices(hidden, hidden)
    second = torch.zeros(hidden, hidden, dtype=torch.float64)
    second[rows, columns] = products / torch.where(rows == columns, 1.0, math.sqrt(2)).to(products)
    second = second + second.T - second.diag().diag()
    covariance = second - mean.outer(mean)
    spread, directions = torch.linalg.eigh(covariance)
    basis = directions.T.flip(0)[:COMPONENTS]
    # Noise may leave a direction no spread; a thousandth of the largest keeps least squares finite.
    spread = spread.flip(0)[:COMPONENTS].clamp(min=1e-3 * float(spread.max().clamp(min=1e-9)))
    weights, biases = [], []
    for joint, rate in zip((with_answer, with_label), rates, strict=True):
        weights.append(_STEEPEST / radius * (basis @ (joint - rate * mean)) / spread)
        biases.append(_STEEPEST * (rate - 0.5))
    return Anchors(radius * mean, basis, torch.stack(weights), torch.stack(biases))


@dataclass(frozen=True)
class MomentBatch(Batch):
    """Queries in all conditions."""


def collate_moments(
    units: Sequence[Sequence[Record]], tokenizer: Any, config: DroConfig
) -> MomentBatch:
    """Each query in its conditions, beside how often it is answered there.

    What was not measured counts as half.
    """
    found: list[Row] = []
    answered: list[float] = []
    queries = [(record.content, number) for number, unit in enumerate(units) for record in unit]
    for query, _ in queries:
        asked = conditions(tokenizer, config.frame, query.text, [config.prompt])
        found += [(ids[-config.max_length :], 1) for ids in asked]
        answered += query.answered or [0.5] * len(asked)
    inputs = pad(found, pad_token_id(tokenizer))
    inputs["answered"] = torch.tensor(answered, dtype=torch.float64)
    inputs["harmless"] = torch.tensor([query.label for query, _ in queries], dtype=torch.float64)
    unit_of_row = torch.tensor([number for _, number in queries], dtype=torch.long)
    return MomentBatch(inputs, unit_of_row, len(units))


def moment_losses(model: Moments, batch: MomentBatch) -> Tensor:
    """One loss a unit, whose gradient is minus the sum of its queries' moments."""
    device = model.statistics.values.device
    inputs = {name: value.to(device) for name, value in batch.inputs.items()}
    queries = len(batch.unit_of_row)
    with torch.no_grad():
        states = last_states(model.base, inputs).view(queries, -1, model.hidden)
        rows = [
            moments(own, often, label.expand(len(own)), model.radius)
            for own, often, label in zip(
                states, inputs["answered"].view(queries, -1), inputs["harmless"], strict=True
            )
        ]
    found: Tensor = model(torch.stack(rows))
    return found.new_zeros(batch.units).index_add(0, batch.unit_of_row.to(device), found)


def measured(
    model: Moments,
    tokenizer: Any,
    units: Sequence[Sequence[Record]],
    config: DroConfig,
    generator: torch.Generator,
) -> list[list[Record]]:
    """The same records with how often the model answers each, in every condition.

    Privacy: what is found of a record depends on that record, the model and coins alone.
    """
    records = [record for unit in units for record in unit]
    rows = [
        ids
        for record in records
        for ids in conditions(tokenizer, config.frame, record.content.text, [config.prompt])
    ]
    replies = sample(model.base, tokenizer, rows, config.samples, config.max_tokens, generator)
    often = [1 - sum(map(refuses, said)) / config.samples for said in replies]
    each = len(rows) // max(1, len(records))
    known = {
        id(record): replace(
            record,
            content=replace(record.content, answered=tuple(often[n * each : (n + 1) * each])),
        )
        for n, record in enumerate(records)
    }
    return [[known[id(record)] for record in unit] for unit in units]


def compare(
    model: Moments, tokenizer: Any, queries: Sequence[Query], config: DroConfig
) -> dict[str, float]:
    """How near the anchors of noised moments are to those that ``queries`` give exactly.

    Returns:
        ``subspace``: share of the exact directions that lies in the noised ones, in [0, 1];
        ``refusal_cosine`` and ``harm_cosine``: between the probes' directions in state space.
    """
    exact = anchors_of(
        model.base, tokenizer, queries, [config.prompt], config.frame, config.samples,
        config.max_tokens,
    )  # fmt: skip
    found = model.anchors()
    overlap = (exact.basis.double() @ found.basis.double().T).square().sum() / len(exact.basis)
    ours, theirs = (one.weights.double() @ one.basis.double() for one in (found, exact))
    cosines = functional.cosine_similarity(ours, theirs, dim=1)
    return {
        "subspace": float(overlap),
        "refusal_cosine": float(cosines[0]),
        "harm_cosine": float(cosines[1]),
    }


def _statistics(base: nn.Module, size: int) -> Statistics:
    """So many numbers."""
    statistics = attach_statistics(base, size).model
    assert isinstance(statistics, Statistics)
    return statistics
