"""Scores of a net on sessions: both predictions, by exposure and by session.

Privacy: exact figures about the records given; they stay where the records are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from wardround.client.tasks.base import Metrics, Record
from wardround.client.tasks.pwiser import metrics
from wardround.client.tasks.pwiser.config import PwiserConfig
from wardround.client.tasks.pwiser.metrics import Floats
from wardround.client.tasks.pwiser.nets import CLICK, CONVERSION
from wardround.client.tasks.pwiser.records import Exposure
from wardround.client.tasks.pwiser.rows import columns_of_rows

_ROWS_PER_PASS = 8192


def evaluate_log(model: nn.Module, records: Sequence[Record], config: PwiserConfig) -> Metrics:
    """AUC, AUC by session, log loss and calibration of clicks and of conversions, and counts.

    ``conversion`` is of conversions among all exposures (CTCVR), ``cvr_auc`` of conversions among
    clicked ones alone. What has no pair to compare is left out.
    """
    rows = [(record.id, row) for record in records for row in record.content.exposures]
    exposures, groups = [row for _, row in rows], [session for session, _ in rows]
    predicted = predict(model, exposures, config)
    clicks = np.array([float(row.click) for row in exposures])
    conversions = np.array([float(row.conversion) for row in exposures])
    found: dict[str, float | None] = {"exposures": float(len(rows))}
    for name, place, labels in (("click", CLICK, clicks), ("conversion", CONVERSION, conversions)):
        chances = predicted[:, place]
        found |= {
            f"{name}s": float(labels.sum()),
            f"{name}_auc": metrics.auc(labels, chances),
            f"{name}_session_auc": metrics.grouped_auc(labels, chances, groups),
            f"{name}_log_loss": metrics.log_loss(labels, chances),
            f"{name}_calibration": metrics.calibration(labels, chances),
            f"{name}_calibration_error": metrics.calibration_error(labels, chances),
        }
    looked = clicks == 1
    found["cvr_auc"] = metrics.auc(conversions[looked], predicted[looked, CONVERSION])
    return {name: value for name, value in found.items() if value is not None}


@torch.no_grad()
def predict(model: nn.Module, rows: Sequence[Exposure], config: PwiserConfig) -> Floats:
    """Probabilities of a click and of a click with conversion, shape ``(rows, 2)``."""
    device = next(model.parameters()).device
    found = []
    for start in range(0, len(rows), _ROWS_PER_PASS):
        inputs = columns_of_rows(rows[start : start + _ROWS_PER_PASS], config)
        logits = model(inputs["categorical"].to(device), inputs["numerical"].to(device))
        found.append(logits.double().sigmoid().cpu().numpy())
    return np.concatenate(found)
