"""From sessions to rows, and from a net's logits to one loss a privacy unit.

A unit's loss is the mean cross-entropy of its own rows plus what its own pairs cost, so nothing of
another unit is in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from wardround.client.tasks.base import Batch, Record
from wardround.client.tasks.pwiser.config import PwiserConfig
from wardround.client.tasks.pwiser.losses import (
    Form,
    Head,
    Pairwise,
    Score,
    pairs_within,
    saddle_rows,
    unit_mean,
    violation,
)
from wardround.client.tasks.pwiser.nets import CLICK, CONVERSION
from wardround.client.tasks.pwiser.ranker import Ranker
from wardround.client.tasks.pwiser.records import Exposure


@dataclass(frozen=True)
class LogBatch(Batch):
    """Rows of exposures, and the settings their losses need."""

    config: PwiserConfig


@dataclass(frozen=True)
class Kinds:
    """Which rows were taken up, only looked at, or not even that; bool, shape ``(rows,)``."""

    converted: Tensor
    clicked: Tensor
    skipped: Tensor


def collate_sessions(units: Sequence[Sequence[Record]], config: PwiserConfig) -> LogBatch:
    """One row an exposure, at most ``max_rows`` of each unit."""
    chosen = [bounded(unit, config.max_rows) for unit in units]
    owner = [place for place, unit in enumerate(chosen) for _ in unit]
    inputs = columns_of_rows([row for unit in chosen for row in unit], config)
    return LogBatch(inputs, torch.tensor(owner, dtype=torch.long), len(units), config)


def bounded(unit: Sequence[Record], most: int) -> list[Exposure]:
    """At most so many exposures of a unit; a hash of record and place chooses, no other unit."""
    rows = [
        (record.id, place, row)
        for record in unit
        for place, row in enumerate(record.content.exposures)
    ]
    if len(rows) > most:
        rows = sorted(rows, key=lambda row: _order(row[0], row[1]))[:most]
    return [row for _, _, row in rows]


def columns_of_rows(rows: Sequence[Exposure], config: PwiserConfig) -> dict[str, Tensor]:
    """Rows as tensors whose first axis is the row."""
    schema, count = config.schema, len(rows)
    categorical = torch.tensor([row.categorical for row in rows], dtype=torch.long)
    numerical = torch.tensor([row.numerical for row in rows], dtype=torch.float64)
    return {
        "categorical": categorical.view(count, len(schema.categorical)),
        "numerical": numerical.view(count, len(schema.numerical)),
        "click": torch.tensor([row.click for row in rows], dtype=torch.bool),
        "conversion": torch.tensor([row.conversion for row in rows], dtype=torch.bool),
    }


def unit_losses(model: Ranker, batch: LogBatch) -> Tensor:
    """One loss a unit, shape ``(units,)``."""
    config, device = batch.config, next(model.parameters()).device
    inputs = {name: value.to(device) for name, value in batch.inputs.items()}
    unit = batch.unit_of_row.to(device)
    logits = model(inputs["categorical"], inputs["numerical"])
    rows = logits.new_zeros(len(logits))
    for place, labels, weight in (
        (CLICK, inputs["click"], config.click_weight),
        (CONVERSION, inputs["conversion"], config.conversion_weight),
    ):
        rows = rows + weight * functional.binary_cross_entropy_with_logits(
            logits[:, place], labels.to(logits), reduction="none"
        )
    losses = unit_mean(rows, unit, batch.units)
    pairwise = config.pairwise
    if not pairwise.strength:
        return losses
    place = CLICK if pairwise.head is Head.CLICK else CONVERSION
    scores = logits[:, place]
    scores = scores.sigmoid() if pairwise.score is Score.PROBABILITY else scores
    click, conversion = inputs["click"], inputs["conversion"]
    kinds = Kinds(conversion, click & ~conversion, ~click)
    if pairwise.form is Form.WITHIN:
        part = within(pairwise, scores, kinds, unit, batch.units)
    elif pairwise.form is Form.ANCHORS:
        part = against_anchors(pairwise, scores, kinds, unit, batch.units)
    else:
        part = square(pairwise, scores, kinds, model.saddle_values(len(scores)), unit, batch.units)
    return losses + pairwise.strength * part


def within(pairwise: Pairwise, scores: Tensor, kinds: Kinds, unit: Tensor, units: int) -> Tensor:
    """Both terms over each unit's own pairs. One unit moves a clipped sum by the clip norm."""
    ahead = scores[kinds.converted], unit[kinds.converted]
    total = scores.new_zeros(units)
    for rows, margin, weight in (
        (kinds.clicked, pairwise.margin_click, pairwise.weight_click),
        (kinds.skipped, pairwise.margin_skip, pairwise.weight_skip),
    ):
        behind = scores[rows], unit[rows]
        total = total + weight * pairs_within(pairwise.surrogate, margin, ahead, behind, units)
    return total


def against_anchors(
    pairwise: Pairwise, scores: Tensor, kinds: Kinds, unit: Tensor, units: int
) -> Tensor:
    """Both terms with public numbers for the other side of each pair."""
    anchors, total = pairwise.anchors, scores.new_zeros(units)
    for rows, margin, weight, anchor in (
        (kinds.clicked, pairwise.margin_click, pairwise.weight_click, anchors.clicked),
        (kinds.skipped, pairwise.margin_skip, pairwise.weight_skip, anchors.skipped),
    ):
        ahead = violation(pairwise.surrogate, margin - (scores[kinds.converted] - anchor))
        behind = violation(pairwise.surrogate, margin - (anchors.converted - scores[rows]))
        part = unit_mean(ahead, unit[kinds.converted], units) + unit_mean(behind, unit[rows], units)
        total = total + weight * part
    return total


def square(
    pairwise: Pairwise, scores: Tensor, kinds: Kinds, saddle: Tensor, unit: Tensor, units: int
) -> Tensor:
    """Both terms of the square surrogate over all pairs, taken apart into a mean over rows."""
    shares, total = pairwise.shares, torch.zeros_like(scores)
    for number, (rows, margin, weight, share) in enumerate(
        (
            (kinds.clicked, pairwise.margin_click, pairwise.weight_click, shares.clicked),
            (kinds.skipped, pairwise.margin_skip, pairwise.weight_skip, shares.skipped),
        )
    ):
        part = saddle_rows(
            margin, scores, kinds.converted, rows, saddle[:, number], (shares.converted, share)
        )
        total = total + weight * part
    return unit_mean(total, unit, units)


def _order(record: str, place: int) -> bytes:
    return hashlib.sha256(f"pwiser/row/{place}/{record}".encode()).digest()
