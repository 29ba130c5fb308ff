"""How well clicks and conversions are told apart, and how far probabilities can be believed.

Knows nothing of models. Source of the grouped measure: Zhu et al. (2017), "Optimized cost per click
in Taobao display advertising" (GAUC).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_BINS = 10
_TINY = 1e-12


def auc(labels: Floats, scores: Floats) -> float | None:
    """Share of (1, 0) pairs in the right order, ties counting half; None without such a pair."""
    from scipy.stats import rankdata

    positive = int(labels.sum())
    negative = len(labels) - positive
    if not positive or not negative:
        return None
    ranks = rankdata(scores)[labels == 1].sum()
    return float((ranks - positive * (positive + 1) / 2) / (positive * negative))


def grouped_auc(labels: Floats, scores: Floats, groups: Sequence[str]) -> float | None:
    """Mean of each group's own AUC, weighted by its rows; None where no group has both labels."""
    places: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        places.setdefault(group, []).append(place)
    found = [(auc(labels[rows], scores[rows]), len(rows)) for rows in places.values()]
    known = [(value, count) for value, count in found if value is not None]
    if not known:
        return None
    return sum(value * count for value, count in known) / sum(count for _, count in known)


def log_loss(labels: Floats, probabilities: Floats) -> float:
    """Mean negative log-likelihood."""
    clipped = probabilities.clip(_TINY, 1 - _TINY)
    return float(-(labels * np.log(clipped) + (1 - labels) * np.log1p(-clipped)).mean())


def calibration(labels: Floats, probabilities: Floats) -> float | None:
    """Predicted over observed positives; None without a positive."""
    return float(probabilities.sum() / labels.sum()) if labels.any() else None


def calibration_error(labels: Floats, probabilities: Floats) -> float:
    """Expected calibration error over ten bins of equal width."""
    bins = np.minimum((probabilities * _BINS).astype(int), _BINS - 1)
    total = 0.0
    for one in range(_BINS):
        inside = bins == one
        if inside.any():
            total += inside.sum() * abs(labels[inside].mean() - probabilities[inside].mean())
    return float(total / len(labels))
