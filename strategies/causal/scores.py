"""How near a learnt graph is to a known one. Knows nothing of how either came about."""

from __future__ import annotations

import numpy as np

from wardround.strategies.causal.systems import Array


def graph_scores(found: Array, truth: Array, threshold: float = 1e-3) -> dict[str, float]:
    """Precision, recall, F1, structural Hamming distance and AUC of edges.

    Args:
        found: Weights, ``[to, from]``.
        truth: Of the same shape; an edge is an entry that is not 0.
        threshold: Weights this small or smaller are none.

    Returns:
        ``shd`` counts pairs of variables whose edge is missing, extra or turned round; ``auc`` is
        of the sizes of all weights, diagonal included, against the edges that are true.
    """
    said, true = np.abs(found) > threshold, truth != 0
    right = int((said & true).sum())
    precision = right / said.sum() if said.any() else 0.0
    recall = right / true.sum() if true.any() else 0.0
    f1 = 2 * right / (said.sum() + true.sum()) if said.any() or true.any() else 1.0
    wrong = said != true
    shd = int((np.triu(wrong | wrong.T, 1)).sum())
    return {
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "shd": float(shd),
        "auc": area_under_curve(np.abs(found).ravel(), true.ravel()),
    }


def prior_scores(prior: Array, truth: Array) -> dict[str, float]:
    """How often what is forbidden is truly absent, and how much of what is absent is forbidden.

    Args:
        prior: 0 at ``[to, from]`` where a path is forbidden.
        truth: True adjacency, ``[to, from]``.
    """
    paths = np.linalg.matrix_power(np.eye(len(truth)) + (truth != 0), len(truth)) > 0
    forbidden, absent = prior == 0, ~paths
    right = int((forbidden & absent).sum())
    return {
        "precision": right / int(forbidden.sum()) if forbidden.any() else 1.0,
        "recall": right / int(absent.sum()) if absent.any() else 1.0,
        "forbidden": float(forbidden.mean()),
    }


def area_under_curve(scores: Array, labels: np.ndarray) -> float:
    """How often a true entry outranks another; ties count half. 0.5 where all are of one kind."""
    from scipy.stats import rankdata

    positives = int(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return 0.5
    ranks = rankdata(scores)[labels].sum()
    return float((ranks - positives * (positives + 1) / 2) / (positives * negatives))


def order_agreement(order: list[int], truth: Array) -> float:
    """Share of true edges whose cause comes first in the order; 1 where there are none."""
    place = {variable: number for number, variable in enumerate(order)}
    edges = np.argwhere(truth != 0)
    if not len(edges):
        return 1.0
    return float(np.mean([place[cause] < place[effect] for effect, cause in edges]))
