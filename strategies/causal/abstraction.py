"""Abs-LiNGAM: a small abstract graph first, and what it forbids makes the large one cheaper.

Rows of the low level are many; rows of both levels at once are few. The few give the abstraction
T, T gives abstract values of all rows, those give the abstract graph, and where that has no path
from a to c, no variable that a looks at has a path to one that c looks at. Source: Massidda,
Magliacane and Bacciu (2024), "Learning causal abstractions of linear structural causal models",
algorithm 2, and released code for the three ways to fit T. Knows nothing of files or privacy.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

import numpy as np
import torch

from wardround.privacy.errors import BadInput
from wardround.strategies.causal.lingam import (
    NO_PATH,
    UNKNOWN,
    DirectLingam,
    as_rows,
    bootstrap_probabilities,
)
from wardround.strategies.causal.systems import Array, relevant


class Style(StrEnum):
    """How T is read off its least-squares estimate."""

    PERFECT = "perfect"
    NOISY = "noisy"
    NOISY_REFIT = "noisy-refit"


@dataclass(frozen=True)
class AbsSettings:
    """What the estimator is told.

    Attributes:
        style: ``perfect`` drops small entries of T; ``noisy`` also lets a variable belong to one
            abstract variable only; ``noisy-refit`` then fits each column on its own variables.
        tau_threshold: Entries of T this small or smaller are none.
        abs_threshold: Abstract edges this weak or weaker are none; with ``bootstrap``, edges found
            in this share of resamples or less.
        bootstrap: Resamples of the abstract graph; 0 fits it once.
        max_abstract_rows: Rows the abstract graph is fitted to; 0 for all.
        random_state: Public; of the resamples.
    """

    style: Style = Style.PERFECT
    tau_threshold: float = 1e-2
    abs_threshold: float = 1e-2
    bootstrap: int = 0
    max_abstract_rows: int = 0
    random_state: int = 0

    def __post_init__(self) -> None:
        for name in ("tau_threshold", "abs_threshold", "bootstrap", "max_abstract_rows"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more")


class AbsLingam:
    """A causal graph of many variables, with the help of an abstract one of few.

    Args:
        settings: See ``AbsSettings``; keyword arguments set single ones.

    Attributes:
        causal_order_: Variables, causes first.
        adjacency_matrix_: Effect of j on i at ``[i, j]``.
        tau_: T, shape ``(variables, abstract variables)``.
        abstract_adjacency_: Effect of abstract variable b on a at ``[a, b]``.
        prior_knowledge_: 0 at ``[i, j]`` where j has no path to i, else -1.
        feature_names_: Column names of the low level.
        abstract_names_: Column names of the high level.
    """

    causal_order_: list[int]
    adjacency_matrix_: Array
    tau_: Array
    abstract_adjacency_: Array
    prior_knowledge_: Array
    feature_names_: tuple[str, ...]
    abstract_names_: tuple[str, ...]

    def __init__(self, settings: AbsSettings | None = None, **changes: Any) -> None:
        table = asdict(settings or AbsSettings())
        unknown = sorted(set(changes) - set(table))
        if unknown:
            raise TypeError(f"AbsLingam has no setting {unknown[0]!r}")
        table |= changes
        self.settings = AbsSettings(**{**table, "style": Style(table["style"])})

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The settings, as scikit-learn asks for them."""
        return asdict(self.settings)

    def set_params(self, **changes: Any) -> Self:
        """Change settings."""
        self.settings = AbsLingam(self.settings, **changes).settings
        return self

    def fit(self, rows: Any, paired: tuple[Any, Any]) -> Self:
        """Learn both levels.

        Args:
            rows: Of the low level, shape ``(rows, variables)``.
            paired: Rows of the low level, and what the high level was in the same moments.

        Raises:
            BadInput: The data cannot be used, or there are too few pairs to tell T.
        """
        values, self.feature_names_ = as_rows(rows)
        self.tau_, self.abstract_names_ = self._tau(paired, values.shape[1])
        abstract = values @ self.tau_
        self.abstract_adjacency_ = self._abstract_graph(abstract)
        self.prior_knowledge_ = prior_from_abstract(self.abstract_adjacency_, self.tau_)
        low = DirectLingam(self.prior_knowledge_).fit(values)
        self.causal_order_, self.adjacency_matrix_ = low.causal_order_, low.adjacency_matrix_
        return self

    def _tau(self, paired: tuple[Any, Any], variables: int) -> tuple[Array, tuple[str, ...]]:
        """T, and the names of the abstract variables."""
        below, above = paired
        names = tuple(map(str, above.columns)) if hasattr(above, "columns") else ()
        low, high = np.asarray(below, dtype=np.float64), np.asarray(above, dtype=np.float64)
        if high.ndim == 1:
            high = high[:, None]
        if low.ndim != 2 or low.shape[1] != variables or len(low) != len(high):
            raise BadInput(
                f"paired rows have shapes {low.shape} and {high.shape}; expected as many of both, "
                f"the first with {variables} columns"
            )
        tau = fit_tau(low, high, self.settings.style, self.settings.tau_threshold)
        return tau, names or tuple(f"y{place}" for place in range(high.shape[1]))

    def _abstract_graph(self, abstract: Array) -> Array:
        """Effects between abstract variables; probabilities of edges where resampled."""
        settings = self.settings
        if settings.max_abstract_rows:
            abstract = abstract[: settings.max_abstract_rows]

        def fit(values: Array) -> Array:
            return DirectLingam().fit(values).adjacency_matrix_

        if settings.bootstrap:
            generator = torch.Generator().manual_seed(settings.random_state)
            found = bootstrap_probabilities(fit, abstract, settings.bootstrap, generator)
        else:
            found = fit(abstract)
        return np.where(np.abs(found) > settings.abs_threshold, found, 0.0)


def fit_tau(low: Array, high: Array, style: Style, threshold: float) -> Array:
    """T from paired rows, by least squares.

    Args:
        low: Rows of the low level.
        high: What the high level was in the same moments.
        style: How T is cleaned.
        threshold: Entries this small or smaller are none.

    Raises:
        BadInput: The pairs do not span the low level: T is not determined.
    """
    rank, size = int(np.linalg.matrix_rank(low)), low.shape[1]
    if rank < size:
        raise BadInput(
            f"paired rows span {rank} of {size} dimensions; T needs as many independent pairs as "
            "there are variables"
        )
    tau = np.linalg.lstsq(low, high)[0]
    kept = np.abs(tau) > threshold
    if style is not Style.PERFECT:
        kept &= np.abs(tau) == np.abs(tau).max(axis=1, keepdims=True)
    if style is Style.NOISY_REFIT:
        for place, own in enumerate(kept.T):
            block = np.flatnonzero(own)
            if len(block):
                tau[block, place] = np.linalg.lstsq(low[:, block], high[:, place])[0]
    return np.where(kept, tau, 0.0)


def prior_from_abstract(adjacency: Array, tau: Array) -> Array:
    """What an abstract graph forbids: 0 at ``[i, j]`` where j has no path to i, else -1.

    Args:
        adjacency: Effect of abstract variable b on a at ``[a, b]``.
        tau: T.
    """
    reached = np.eye(len(adjacency), dtype=bool) | (adjacency.T != 0)  # [from, to]
    for middle in range(len(reached)):
        reached |= np.outer(reached[:, middle], reached[middle])
    prior = np.full((len(tau),) * 2, float(UNKNOWN))
    looks_at = relevant(tau)
    for a, b in np.argwhere(~reached):
        prior[np.ix_(looks_at[b], looks_at[a])] = NO_PATH
    return prior
