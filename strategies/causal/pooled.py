"""DirectLiNGAM over several hospitals, exactly as if their rows lay in one place; not private.

Hospitals hold rows over the same variables. The server keeps, for each variable that is left, how
it is made of the original ones; it asks for sums of rows and of products once, and in each round
for sums of two functions of standardised residuals. What it learns is then that of the pooled rows
but for rounding. **These sums are bare**: this is for hospitals that may show each other such
figures, and for comparing with what privacy costs. Source: the algorithm of ``lingam.py``, its
means taken over hospitals. Knows nothing of rounds or the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from wardround.privacy.errors import BadInput
from wardround.strategies.causal.lingam import (
    DirectLingam,
    as_rows,
    barred_edges,
    compared,
    entropy_of_means,
    order_constraints,
    scores_from,
    strengths,
)
from wardround.strategies.causal.systems import Array


class Site(Protocol):
    """What a hospital answers."""

    def moments(self) -> tuple[int, Array, Array]:
        """Number of rows, their sum, and the sum of their products with themselves."""

    def residual_sums(self, centre: Array, directions: Array) -> tuple[Array, Array]:
        """Sums over rows of ``log cosh u`` and ``u exp(-u^2 / 2)``, ``u = (x - centre) @ d``."""


@dataclass(frozen=True)
class RowSite:
    """A hospital that holds its rows here.

    Attributes:
        rows: Shape ``(rows, variables)``.
    """

    rows: Array

    def moments(self) -> tuple[int, Array, Array]:
        """See ``Site``."""
        return len(self.rows), self.rows.sum(axis=0), self.rows.T @ self.rows

    def residual_sums(self, centre: Array, directions: Array) -> tuple[Array, Array]:
        """See ``Site``."""
        values = (self.rows - centre) @ directions
        size = np.abs(values)
        log_cosh = size + np.log1p(np.exp(-2 * size)) - np.log(2)
        return log_cosh.sum(axis=0), (values * np.exp(-(values**2) / 2)).sum(axis=0)


def fit_pooled(sites: Sequence[Site], prior_knowledge: Array | None = None) -> DirectLingam:
    """The estimator fitted to all sites' rows together.

    Raises:
        BadInput: There are no sites, or the prior knowledge cannot be satisfied.
    """
    if not sites:
        raise BadInput("there are no hospitals to ask")
    answers = [site.moments() for site in sites]
    count = sum(rows for rows, _, _ in answers)
    centre = np.sum([total for _, total, _ in answers], axis=0) / count
    products = np.sum([square for _, _, square in answers], axis=0)
    covariance = products / count - np.outer(centre, centre)
    size = len(centre)
    found = DirectLingam(prior_knowledge)
    before = order_constraints(prior_knowledge, size)
    barred = barred_edges(prior_knowledge, size)
    found.causal_order_ = _find_order(sites, count, centre, covariance, (before, barred))
    scaled = covariance * count / (count - 1)
    found.adjacency_matrix_ = strengths(scaled, count, found.causal_order_, barred)
    found.feature_names_ = tuple(f"x{place}" for place in range(size))
    return found


def row_sites(tables: Sequence[Array]) -> list[RowSite]:
    """Sites that hold these rows; ``BadInput`` where one cannot be used."""
    return [RowSite(as_rows(table)[0]) for table in tables]


def _find_order(
    sites: Sequence[Site], count: int, centre: Array, covariance: Array, known: tuple[Array, Array]
) -> list[int]:
    """Variables, causes first; one question to all sites a root.

    ``known`` is who must come before whom, and which edges are barred.
    """
    before, barred = known
    left, order = list(range(len(centre))), []
    made_of = np.eye(len(centre))  # each column: a variable's residual, in the original ones
    while len(left) > 1:
        spread = np.sqrt(np.einsum("ij,ik,kj->j", made_of, covariance, made_of))
        made_of = made_of / spread
        candidates = [p for p, j in enumerate(left) if not before[left, j].any()]
        correlation = made_of.T @ covariance @ made_of
        root = candidates[0]
        if len(candidates) > 1:
            doubtful = np.logical_not(barred[np.ix_(left, left)])
            pairs = np.array(compared(candidates, doubtful), dtype=int).reshape(-1, 2)
            a, b = pairs.T
            rho = correlation[a, b]
            between = (made_of[:, a] - rho * made_of[:, b]) / np.sqrt(np.maximum(1 - rho**2, 1e-12))
            directions = np.concatenate([made_of, between], axis=1)
            sums = [site.residual_sums(centre, directions) for site in sites]
            means = [np.sum(part, axis=0) / count for part in zip(*sums, strict=True)]
            entropy = entropy_of_means(*means)
            given = np.full((len(left),) * 2, np.nan)
            given[a, b] = entropy[len(left) :]
            scores = scores_from(entropy[: len(left)], given, candidates, doubtful)
            root = candidates[int(np.argmin(scores))]
        order.append(left.pop(root))
        cause, kept = made_of[:, root], np.delete(made_of, root, axis=1)
        kept = kept - np.outer(cause, np.delete(correlation[root], root))
        made_of = kept
    return order + left
