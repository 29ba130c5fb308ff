"""Linear causal systems and their abstractions: exact relations, and random ones to try things on.

A sample is a row. ``W[i, j]`` is the weight of the edge from i to j, so ``X = X W + E``; an
abstraction ``Y = X T`` of it is a system ``Y = Y M + U`` with ``U = E S``. Source: Massidda,
Magliacane and Bacciu (2024), "Learning causal abstractions of linear structural causal models",
definitions 1 and 2, theorem 3, algorithm 1. Knows nothing of learning.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
_DIRICHLET = 1e3  # how evenly an abstract weight is shared over the variables that carry it


@dataclass(frozen=True)
class Shape:
    """How large a random system is.

    Attributes:
        blocks: Abstract variables.
        edges: Between them.
        least: Smallest block.
        most: Largest block.
        relevant: Share of a block that its abstract variable may not leave out.
        ignored: Whether there is a block that no abstract variable looks at.
    """

    blocks: int = 5
    edges: int = 8
    least: int = 5
    most: int = 10
    relevant: float = 0.5
    ignored: bool = True

    def __post_init__(self) -> None:
        most_edges = math.comb(self.blocks, 2)
        if self.blocks < 1 or not 0 <= self.edges <= most_edges:
            raise ValueError(f"edges is {self.edges}; {self.blocks} blocks have 0 to {most_edges}")
        if not 1 <= self.least <= self.most:
            raise ValueError(f"least is {self.least}; it must be 1 to most, {self.most}")
        if not 0 <= self.relevant <= 1:
            raise ValueError(f"relevant is {self.relevant}; it must lie in [0, 1]")


@dataclass(frozen=True)
class System:
    """A linear system with its abstraction.

    Attributes:
        low: W, shape ``(variables, variables)``.
        high: M, shape ``(blocks, blocks)``.
        tau: T, shape ``(variables, blocks)``.
        noise_map: S, shape ``(variables, blocks)``.
        block_of: Each variable's block; ``blocks`` for those that are ignored.
    """

    low: Array
    high: Array
    tau: Array
    noise_map: Array
    block_of: tuple[int, ...]

    def draw(self, rows: int, generator: torch.Generator) -> Array:
        """Rows of the low-level system with exponential noise of mean 0 and deviation 1."""
        uniform = torch.rand((rows, len(self.low)), generator=generator, dtype=torch.float64)
        noise: Array = -np.log1p(-uniform.numpy()) - 1
        return np.asarray(noise @ total_effects(self.low), dtype=np.float64)


def total_effects(weights: Array) -> Array:
    """``(I - W)^-1``: what one unit of noise at i does to j along all paths."""
    return np.asarray(np.linalg.inv(np.eye(len(weights)) - weights), dtype=np.float64)


def abstract_weights(low: Array, tau: Array, noise_map: Array) -> Array:
    """The abstract system that a low-level one has: ``M = T^+ ((W - I) S + T)``."""
    return np.linalg.pinv(tau) @ ((low - np.eye(len(low))) @ noise_map + tau)


def abstraction_error(system: System) -> float:
    """The largest entry of ``F T - S G``; 0 where the two levels agree for all inputs."""
    low = total_effects(system.low) @ system.tau
    high = system.noise_map @ total_effects(system.high)
    return float(np.abs(low - high).max())


def relevant(tau: Array) -> list[list[int]]:
    """The variables each abstract one looks at (definition 2)."""
    return [np.flatnonzero(column).tolist() for column in tau.T]


def random_dag(size: int, edges: int, generator: torch.Generator) -> Array:
    """A random graph with so many edges, from lower to higher number; weights of 0.5 to 2."""
    pairs = [(i, j) for i in range(size) for j in range(i + 1, size)]
    chosen = torch.randperm(len(pairs), generator=generator)[:edges].tolist()
    weights = np.zeros((size, size))
    for place in chosen:
        weights[pairs[place]] = _signed(1, generator)[0]
    return weights


def random_system(shape: Shape, generator: torch.Generator) -> System:
    """An abstract system and a low-level one that it abstracts, exactly."""
    high = random_dag(shape.blocks, shape.edges, generator)
    count = shape.blocks + shape.ignored
    sizes = torch.randint(shape.least, shape.most + 1, (count,), generator=generator).tolist()
    starts = np.cumsum([0, *sizes])
    places = [np.arange(starts[k], starts[k + 1]) for k in range(count)]
    block_of = tuple(k for k, size in enumerate(sizes) for _ in range(size))
    low, tau = np.zeros((starts[-1],) * 2), np.zeros((starts[-1], shape.blocks))
    noise_map = np.zeros_like(tau)
    for k, own in enumerate(places):
        inside = np.triu(_normal((len(own),) * 2, generator) / math.sqrt(len(own)), 1)
        low[np.ix_(own, own)] = inside
        if k < shape.blocks:
            tau[own, k] = _block_tau(len(own), shape.relevant, generator)
            noise_map[own, k] = total_effects(inside) @ tau[own, k]
    for i, j in np.argwhere(high):
        share = _shares(noise_map[places[j], j], len(places[i]), generator)
        low[np.ix_(places[i], places[j])] = high[i, j] * tau[places[i], i][:, None] * share
    if shape.ignored:
        own, before = places[-1], np.arange(starts[-2])
        given = _normal((len(before), len(own)), generator) / math.sqrt(len(own))
        kept = torch.rand(given.shape, generator=generator).numpy() < 0.5
        low[np.ix_(before, own)] = given * kept
    return System(low, high, tau, noise_map, block_of)


def _block_tau(size: int, kept: float, generator: torch.Generator) -> Array:
    """One block's column of T: some zeros, never at its last variable."""
    column = _signed(size, generator)
    most = int((size - 1) * (1 - kept))
    zeros = int(torch.randint(most + 1, (1,), generator=generator))
    column[torch.randperm(size - 1, generator=generator)[:zeros].numpy()] = 0.0
    return column


def _shares(effects: Array, rows: int, generator: torch.Generator) -> Array:
    """For each row, numbers v over a block with ``v @ effects = 1``, on half of its variables."""
    carriers = np.flatnonzero(np.abs(effects) > 1e-9)
    found = np.zeros((rows, len(effects)))
    for row in found:
        order = torch.randperm(len(carriers), generator=generator)[: max(1, len(carriers) // 2)]
        chosen = carriers[order.numpy()]
        # A Dirichlet of large concentration is nearly its mean; normals are close enough to gammas.
        parts = _DIRICHLET + math.sqrt(_DIRICHLET) * _normal((len(chosen),), generator)
        row[chosen] = parts / parts.sum() / effects[chosen]
    return found


def _signed(count: int, generator: torch.Generator) -> Array:
    """Sizes uniform in [0.5, 2), signs by a coin."""
    size = 0.5 + 1.5 * torch.rand(count, generator=generator, dtype=torch.float64)
    sign = 2 * torch.randint(2, (count,), generator=generator, dtype=torch.float64) - 1
    return np.asarray((size * sign).numpy())


def _normal(shape: Sequence[int], generator: torch.Generator) -> Array:
    """Standard normals."""
    return np.asarray(torch.randn(tuple(shape), generator=generator, dtype=torch.float64).numpy())
