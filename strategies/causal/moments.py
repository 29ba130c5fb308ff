"""Causal order from sums of products up to third order: what can be released with noise at once.

A row is centred, scaled and shortened to length 1 by public numbers; its contribution is the row,
its products with itself and its triple products, each unordered product once and weighted by the
root of how often it occurs, so that a contribution is at most ``sqrt(3)`` long. Sums of these over
hospitals give every second and third cumulant, also of residuals, because residuals are linear; in
third order a root and what is left of another variable have no joint cumulants. Needs skewed
noise. Sources: Shimizu et al. (2011) for the recursion; Chen et al. (2025), arXiv 2507.06888, for
cumulants over hospitals; the bound on the length is ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations_with_replacement, permutations

import numpy as np
import torch

from wardround.strategies.causal.lingam import order_constraints, strengths
from wardround.strategies.causal.systems import Array

ORDERS = 3
SENSITIVITY = math.sqrt(ORDERS)  # add or remove one row
SURE = 3.0  # deviations of the noise that a weight must exceed


@dataclass(frozen=True)
class Moments:
    """Raw moments of scaled rows, for one site or summed over several.

    Attributes:
        count: Rows, as publicly declared.
        first: Shape ``(d,)``: mean.
        second: Shape ``(d, d)``: mean of products.
        third: Shape ``(d, d, d)``: mean of triple products.
    """

    count: float
    first: Array
    second: Array
    third: Array

    def cumulants(self) -> tuple[Array, Array]:
        """Covariance and third central moments."""
        mean = self.first
        covariance = self.second - np.outer(mean, mean)
        crossed = np.einsum("ij,k->ijk", self.second, mean)
        crossed = crossed + crossed.transpose(0, 2, 1) + crossed.transpose(2, 1, 0)
        return covariance, self.third - crossed + 2 * np.einsum("i,j,k->ijk", mean, mean, mean)


@dataclass(frozen=True)
class Verdict:
    """A graph from moments, and whether the noise lets it be believed.

    Attributes:
        order: Variables, causes first.
        adjacency: Effect of j on i at ``[i, j]``, in scaled units.
        stability: Share of draws of fresh noise in which an edge keeps its direction, same shape.
        believed: Whether every edge keeps its direction in at least the asked-for share.
        reason: In a sentence.
    """

    order: tuple[int, ...]
    adjacency: Array
    stability: Array
    believed: bool
    reason: str


@lru_cache(maxsize=32)
def monomials(size: int) -> tuple[tuple[tuple[int, ...], ...], Array]:
    """The products in a contribution, in order, and each one's weight."""
    found = [
        product
        for order in range(1, ORDERS + 1)
        for product in combinations_with_replacement(range(size), order)
    ]
    return tuple(found), np.sqrt([float(len(set(permutations(p)))) for p in found])


def contributions(scaled: Array) -> Array:
    """Each row's contribution, shape ``(rows, products)``; ``sqrt(3)`` long at most.

    Args:
        scaled: Rows of length 1 at most; see ``scale_rows``.
    """
    products, weights = monomials(scaled.shape[1])
    columns = [scaled[:, list(product)].prod(axis=1) for product in products]
    return np.asarray(np.stack(columns, axis=1) * weights, dtype=np.float64)


def scale_rows(rows: Array, centre: Array, scale: Array, radius: float) -> Array:
    """Rows moved, scaled and shortened to length 1, all by public numbers."""
    values = (rows - centre) / (scale * radius)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.maximum(length, 1.0))


def moments_of(total: Array, count: float, size: int) -> Moments:
    """Moments from a sum of contributions.

    Raises:
        ValueError: The sum has another length.
    """
    products, weights = monomials(size)
    if total.shape != (len(products),):
        raise ValueError(f"the sum has shape {total.shape}; expected ({len(products)},)")
    first, second, third = np.zeros(size), np.zeros((size,) * 2), np.zeros((size,) * 3)
    tensors = {1: first, 2: second, 3: third}
    for product, value in zip(products, total / weights / count, strict=True):
        for place in set(permutations(product)):
            tensors[len(product)][place] = value
    return Moments(count, first, second, third)


def root_statistics(covariance: Array, third: Array) -> Array:
    """How far each variable is from being a root: 0 for a root, to third order."""
    variance = np.maximum(np.diag(covariance), 1e-300)
    size = len(covariance)
    scores = np.zeros(size)
    for j in range(size):
        for i in set(range(size)) - {j}:
            c = covariance[j, i] / variance[j]
            left = max(variance[i] - c * covariance[j, i], 1e-300)
            with_left = third[j, j, i] - c * third[j, j, j]
            left_twice = third[j, i, i] - 2 * c * third[j, j, i] + c**2 * third[j, j, j]
            scores[j] += with_left**2 / (variance[j] ** 2 * left)
            scores[j] += left_twice**2 / (variance[j] * left**2)
    return scores


def order_of_cumulants(covariance: Array, third: Array, before: Array) -> list[int]:
    """Variables, causes first."""
    left, order = list(range(len(covariance))), []
    while len(left) > 1:
        candidates = [p for p, j in enumerate(left) if not before[left, j].any()]
        scores = root_statistics(covariance, third)
        root = min(candidates, key=lambda place: float(scores[place]))
        kept = [place for place in range(len(left)) if place != root]
        step = np.eye(len(left))[kept]
        step[:, root] = -covariance[kept, root] / max(covariance[root, root], 1e-300)
        covariance = step @ covariance @ step.T
        third = np.einsum("ai,bj,ck,ijk->abc", step, step, step, third, optimize=True)
        order.append(left.pop(root))
    return order + left


def positive(covariance: Array) -> Array:
    """The covariance with eigenvalues that noise pushed below a thousandth of the largest there."""
    values, vectors = np.linalg.eigh(covariance)
    least = 1e-3 * max(float(values[-1]), 1e-9)
    return np.asarray((vectors * np.maximum(values, least)) @ vectors.T)


def judge(
    totals: Sequence[Array],
    counts: Sequence[float],
    size: int,
    deviation: float,
    generator: torch.Generator,
    prior: Array | None = None,
    draws: int = 50,
    least_stability: float = 0.8,
    noised: bool = False,
) -> Verdict:
    """A graph from released sums, and whether it survives as much noise again.

    Args:
        totals: Each site's sum of contributions, noised or not.
        counts: Each site's declared number of rows.
        size: Variables.
        deviation: Of the noise on each number of one site's sum; 0 without noise.
        generator: Public; of the noise that is drawn again.
        prior: As ``DirectLingam`` takes it.
        draws: How often noise is drawn again.
        least_stability: Share of draws in which every edge must keep its direction.
        noised: The sums hold noise of a size that is not known here.
    """
    before = order_constraints(prior, size)
    barred = np.zeros((size, size), dtype=bool) if prior is None else prior == 0
    total, count = np.sum(totals, axis=0), float(sum(counts))

    def cumulants(summed: Array) -> tuple[Array, Array]:
        covariance, third = moments_of(summed, count, size).cumulants()
        return (positive(covariance) if deviation or noised else covariance), third

    covariance, third = cumulants(total)
    order = order_of_cumulants(covariance, third, before)
    adjacency = strengths(covariance, count, order, barred)
    kept, weights = np.zeros_like(adjacency), []
    spread = deviation * math.sqrt(len(totals))
    for _ in range(draws if spread else 0):
        noise = torch.randn(len(total), generator=generator, dtype=torch.float64).numpy()
        again = cumulants(total + spread * noise)
        place = {v: n for n, v in enumerate(order_of_cumulants(*again, before))}
        kept += [[place[j] < place[i] for j in range(size)] for i in range(size)]
        weights.append(strengths(again[0], math.inf, order, barred))
    if weights:  # an edge that noise alone could have made is none
        adjacency = np.where(np.abs(adjacency) > SURE * np.std(weights, axis=0), adjacency, 0.0)
    edges = adjacency != 0
    stability = np.where(edges, kept / draws if spread else 1.0, 0.0)
    weakest = float(stability[edges].min()) if edges.any() else 0.0
    if not edges.any():
        believed, reason = not spread, "no edge stands out"
        reason += " of the noise" if spread else ""
    else:
        believed = weakest >= least_stability
        state = "so it can be believed" if believed else "the noise is too large for this graph"
        reason = f"the least stable edge keeps its direction in {weakest:.0%} of draws; {state}"
    return Verdict(tuple(order), adjacency, stability, believed, reason)
