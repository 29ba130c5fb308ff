"""DirectLiNGAM: the order of causes and their strengths, from rows.

The root is the variable that looks most independent of what is left of all others once it is
regressed out; it is taken away and the next is sought. Every entropy of a residual is computed
once for both of the comparisons it is in. Strengths are regressions along the order, with edges
dropped while the BIC falls. ``adjacency_matrix_[i, j]`` is the effect of j on i, as in the package
``lingam``. Sources: Shimizu et al. (2011), "DirectLiNGAM"; Hyvärinen and Smith (2013), "Pairwise
likelihood ratios", for the entropy. Knows nothing of files or privacy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import torch

from wardround.privacy.errors import BadInput
from wardround.strategies.causal.systems import Array

_K1, _K2, _GAMMA = 79.047, 7.4129, 0.37457
UNKNOWN, NO_PATH = -1, 0


class DirectLingam:
    """Who causes whom among variables with linear effects and noise that is not Gaussian.

    Args:
        prior_knowledge: Shape ``(variables, variables)``, or None: 0 at ``[i, j]`` says that j has
            no path to i, -1 that nothing is known.

    Attributes:
        causal_order_: Variables, causes first.
        adjacency_matrix_: Effect of j on i at ``[i, j]``.
        feature_names_: Column names, where the data had some.
    """

    causal_order_: list[int]
    adjacency_matrix_: Array
    feature_names_: tuple[str, ...]

    def __init__(self, prior_knowledge: Array | None = None) -> None:
        self.prior_knowledge = prior_knowledge

    def fit(self, rows: Any) -> Self:
        """Learn from rows, shape ``(rows, variables)``; a table with named columns will do.

        Raises:
            BadInput: The data cannot be used, or the prior knowledge cannot be satisfied.
        """
        values, self.feature_names_ = as_rows(rows)
        before = order_constraints(self.prior_knowledge, values.shape[1])
        barred = barred_edges(self.prior_knowledge, values.shape[1])
        self.causal_order_ = find_order(values, before, barred)
        covariance = np.cov(values, rowvar=False).reshape((values.shape[1],) * 2)
        self.adjacency_matrix_ = strengths(covariance, len(values), self.causal_order_, barred)
        return self


def as_rows(rows: Any) -> tuple[Array, tuple[str, ...]]:
    """Finite float64 rows and column names (``x0``, ``x1``, … where there are none).

    Raises:
        BadInput: Not a table of finite numbers with more rows than columns.
    """
    names = tuple(map(str, rows.columns)) if hasattr(rows, "columns") else ()
    try:
        values = np.asarray(rows, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BadInput(f"the data is not a table of numbers ({error})") from error
    if values.ndim != 2 or not values.size:
        raise BadInput(f"the data has shape {values.shape}; expected rows and columns")
    if not np.isfinite(values).all():
        raise BadInput("the data holds a value that is missing or not finite")
    if len(values) <= values.shape[1]:
        raise BadInput(f"{len(values)} rows for {values.shape[1]} variables; more rows are needed")
    constant = np.flatnonzero(values.std(axis=0) == 0)
    if len(constant):
        raise BadInput(f"column {constant[0]} of the data never changes")
    return values, names or tuple(f"x{place}" for place in range(values.shape[1]))


def order_constraints(prior: Array | None, size: int) -> Array:
    """Who must come before whom: true at ``[i, j]`` where i must come before j.

    A known absence of a path from j to i puts i before j, unless the other way is barred as well:
    two variables without any path between them may come in any order.

    Raises:
        BadInput: Another shape, other values, or demands that go round in a circle.
    """
    if prior is None:
        return np.zeros((size, size), dtype=bool)
    if prior.shape != (size, size) or not np.isin(prior, (UNKNOWN, NO_PATH)).all():
        raise BadInput(f"prior_knowledge must be {size} by {size}, of -1 and 0")
    absent = prior == NO_PATH
    np.fill_diagonal(absent, False)
    before = np.asarray(absent & ~absent.T)
    left = list(range(size))
    while left:
        first = [j for j in left if not before[left, j].any()]
        if not first:
            raise BadInput("prior_knowledge goes round in a circle; no order satisfies it")
        left = [j for j in left if j not in first]
    return before


def barred_edges(prior: Array | None, size: int) -> Array:
    """True at ``[i, j]`` where j cannot be a cause of i."""
    return np.zeros((size, size), dtype=bool) if prior is None else prior == NO_PATH


def find_order(values: Array, before: Array, barred: Array) -> list[int]:
    """Variables, causes first.

    Args:
        values: Rows.
        before: From ``order_constraints``.
        barred: From ``barred_edges``; such pairs are not compared, because the answer is known.
    """
    left, order = list(range(values.shape[1])), []
    residual = values - values.mean(axis=0)
    while len(left) > 1:
        residual = residual / residual.std(axis=0)
        candidates = [p for p, j in enumerate(left) if not before[left, j].any()]
        root = candidates[0]
        if len(candidates) > 1:
            entropy = entropies(residual)
            doubtful = np.logical_not(barred[np.ix_(left, left)])
            scores = root_scores(residual, entropy, candidates, doubtful)
            root = candidates[int(np.argmin(scores))]
        order.append(left.pop(root))
        cause = residual[:, root]
        residual = np.delete(residual, root, axis=1)
        residual = residual - np.outer(cause, cause @ residual / len(residual))
    return order + left


def root_scores(
    standard: Array, entropy: Array, candidates: Sequence[int], doubtful: Array
) -> Array:
    """How far each candidate is from being a root; the smallest is the likeliest.

    Args:
        standard: Rows of mean 0 and deviation 1.
        entropy: Of each column.
        candidates: Columns.
        doubtful: True at ``[i, j]`` where j may be a cause of i.
    """
    correlation = standard.T @ standard / len(standard)
    size = standard.shape[1]
    given = np.full((size, size), np.nan)  # [a, b]: entropy of a once b is taken out
    for a, b in compared(candidates, doubtful):
        rho = correlation[a, b]
        left = (standard[:, a] - rho * standard[:, b]) / math.sqrt(max(1 - rho**2, 1e-12))
        given[a, b] = entropies(left[:, None])[0]
    return scores_from(entropy, given, candidates, doubtful)


def compared(candidates: Sequence[int], doubtful: Array) -> list[tuple[int, int]]:
    """The pairs (a, b) of which it must be known what is left of a without b."""
    pairs = {(i, j) for i in candidates for j in np.flatnonzero(doubtful[i]).tolist() if i != j}
    return sorted(pairs | {(j, i) for i, j in pairs})


def scores_from(entropy: Array, given: Array, candidates: Sequence[int], doubtful: Array) -> Array:
    """Scores from entropies alone: ``sum_j min(0, I(j → i) - I(i → j))^2`` of each candidate i."""
    scores = []
    for i in candidates:
        others = [j for j in range(len(entropy)) if j != i and doubtful[i, j]]
        forwards = entropy[others] + given[i, others]
        backwards = entropy[i] + given[others, i]
        scores.append(float((np.minimum(0.0, forwards - backwards) ** 2).sum()))
    return np.array(scores)


def entropies(standard: Array) -> Array:
    """Entropy of each standardised column, by the maximum entropy approximation."""
    size = np.abs(standard)
    log_cosh = size + np.log1p(np.exp(-2 * size)) - math.log(2)
    bell = standard * np.exp(-(standard**2) / 2)
    return entropy_of_means(log_cosh.mean(axis=0), bell.mean(axis=0))


def entropy_of_means(log_cosh: Array, bell: Array) -> Array:
    """Entropy from the means of ``log cosh u`` and ``u exp(-u^2 / 2)`` of a standardised u."""
    flat = (1 + math.log(2 * math.pi)) / 2
    return np.asarray(flat - _K1 * (log_cosh - _GAMMA) ** 2 - _K2 * bell**2)


def strengths(covariance: Array, rows: float, order: Sequence[int], barred: Array) -> Array:
    """Each variable regressed on those before it, edges dropped while the BIC falls.

    Args:
        covariance: Of all variables.
        rows: How many rows it is of; infinity drops no edge.
        order: Causes first.
        barred: Edges that cannot be; true at ``[to, from]``.
    """
    found = np.zeros_like(covariance)
    for place, target in enumerate(order):
        kept = [cause for cause in order[:place] if not barred[target, cause]]
        coefficients = np.zeros(0)
        while kept:
            inverse = np.linalg.pinv(covariance[np.ix_(kept, kept)])
            coefficients = inverse @ covariance[kept, target]
            explained = float(coefficients @ covariance[kept, target])
            unexplained = max(covariance[target, target] - explained, 1e-300)
            # What leaving one out would add to the unexplained variance.
            dearer = coefficients**2 / np.maximum(np.diag(inverse), 1e-300)
            weakest = int(np.argmin(dearer))
            if rows * math.log1p(dearer[weakest] / unexplained) >= math.log(max(rows, 2)):
                break
            kept.pop(weakest)
            coefficients = np.zeros(0)
        found[target, kept] = coefficients
    return found


def bootstrap_probabilities(
    fit: Callable[[Array], Array], values: Array, resamples: int, generator: torch.Generator
) -> Array:
    """Share of resamples in which each edge is found.

    Args:
        fit: From rows to an adjacency matrix.
        values: Rows.
        resamples: How many times rows are drawn again, with replacement.
        generator: Public.
    """
    found = np.zeros((values.shape[1],) * 2)
    for _ in range(resamples):
        chosen = torch.randint(len(values), (len(values),), generator=generator).numpy()
        found += fit(values[chosen]) != 0
    return found / resamples
