"""The ``[task]`` table: which variables, and the public numbers that bound a row.

Centres and scales are clinical ranges written down by people, never means and deviations of the
records: those would be releases of their own. Knows nothing of files or models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wardround.client.tasks.base import TaskConfig
from wardround.privacy.tables import from_table
from wardround.strategies.causal.moments import scale_rows
from wardround.strategies.causal.systems import Array

MOST = 12  # variables whose third-order moments still make sense under noise
RESERVED = ("id", "patient")


@dataclass(frozen=True)
class Variable:
    """A column of the data.

    Attributes:
        name: As the files call it.
        centre: What is taken from a value; about its usual middle.
        scale: What divides it then; about its usual spread.
    """

    name: str
    centre: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not self.name or self.name in RESERVED:
            raise ValueError(f"name is {self.name!r}; it must be a column's, not id or patient")
        if not math.isfinite(self.centre):
            raise ValueError(f"centre is {self.centre}; it must be finite")
        if not 0 < self.scale < math.inf:
            raise ValueError(f"scale is {self.scale}; it must be greater than 0")


@dataclass(frozen=True)
class GeneratedRows:
    """How large a generated study is.

    Attributes:
        records_per_hospital: Rows of each.
        edges: Between variables.
    """

    records_per_hospital: int = 5000
    edges: int = 4

    def __post_init__(self) -> None:
        if self.records_per_hospital < 1:
            raise ValueError(
                f"records_per_hospital is {self.records_per_hospital}; it must be 1 or more"
            )
        if self.edges < 0:
            raise ValueError(f"edges is {self.edges}; it must be 0 or more")


@dataclass(frozen=True)
class CausalConfig:
    """The ``[task]`` table.

    Attributes:
        variable: The columns of the files.
        abstract: Abstract variables, each a table of weights by variable, in scaled units; the
            graph is then one of these. Empty for a graph of the variables themselves.
        radius: How long a scaled row may be, in scales; longer rows are shortened. 0 for 2.5 times
            the root of the number of variables in the graph.
        generated: How large a generated study is.
    """

    variable: tuple[Variable, ...]
    abstract: Mapping[str, Any] = field(default_factory=dict)
    radius: float = 0.0
    generated: GeneratedRows = field(default_factory=GeneratedRows)

    def __post_init__(self) -> None:
        names = [variable.name for variable in self.variable]
        if len(set(names)) != len(names):
            raise ValueError("variable: a name stands there twice")
        for name, weights in self.abstract.items():
            if not isinstance(weights, Mapping) or not weights:
                raise ValueError(f"abstract.{name} must be a table of weights by variable")
            odd = sorted(set(weights) - set(names))
            if odd:
                raise ValueError(f"abstract.{name} names {odd[0]!r}, which is no variable")
            if not all(isinstance(w, int | float) and math.isfinite(w) for w in weights.values()):
                raise ValueError(f"abstract.{name}: weights must be finite numbers")
        if not 2 <= len(self.names) <= MOST:
            raise ValueError(f"the graph has {len(self.names)} variables; it must have 2 to {MOST}")
        if not 0 <= self.radius < math.inf:
            raise ValueError(f"radius is {self.radius}; it must be 0 or more")

    @property
    def names(self) -> tuple[str, ...]:
        """The variables of the graph."""
        return tuple(self.abstract) or tuple(variable.name for variable in self.variable)

    @property
    def tau(self) -> Array:
        """Weights of the graph's variables, shape ``(columns, variables of the graph)``."""
        columns = [variable.name for variable in self.variable]
        if not self.abstract:
            return np.eye(len(columns))
        return np.array(
            [[float(weights.get(name, 0.0)) for weights in self.abstract.values()]
             for name in columns]
        )  # fmt: skip

    def scaled(self, rows: Array) -> Array:
        """Rows as contributions see them: centred, scaled, abstract, at most of length 1."""
        centre = np.array([variable.centre for variable in self.variable])
        scale = np.array([variable.scale for variable in self.variable])
        values = (rows - centre) / scale @ self.tau
        size = values.shape[1]
        radius = self.radius or 2.5 * math.sqrt(size)
        return scale_rows(values, np.zeros(size), np.ones(size), radius)

    def in_own_units(self, adjacency: Array) -> Array:
        """Effects in the columns' own units; abstract variables keep scaled ones."""
        if self.abstract:
            return adjacency
        scale = np.array([variable.scale for variable in self.variable])
        return np.asarray(adjacency * scale[:, None] / scale[None])


def causal_config(table: TaskConfig) -> CausalConfig:
    """The table, checked; ``BadInput`` names a key or value that cannot be used."""
    return from_table(CausalConfig, table, "[task]")
