"""From a run of the task ``abs_lingam``, or from a CSV file at home, to a causal graph.

Of a run only what hospitals released is read; a graph that as much noise again would turn round is
not written. A file is read as it is and nothing is noised: that is for the house that holds it.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from wardround.client.tasks.abs_lingam.config import causal_config
from wardround.client.tasks.abs_lingam.formats import read_rows
from wardround.privacy.errors import BadInput
from wardround.strategies.causal.abstraction import AbsLingam
from wardround.strategies.causal.graphs import edges_of, write_graph
from wardround.strategies.causal.lingam import DirectLingam, bootstrap_probabilities
from wardround.strategies.causal.moments import SENSITIVITY, judge
from wardround.strategies.causal.systems import Array
from wardround.study.released import released_sums
from wardround.study.run_folder import RunFolder

DRAWS = 50


@dataclass(frozen=True)
class Causes:
    """A graph and how far it can be trusted.

    Attributes:
        names: Variables.
        order: Their causal order.
        adjacency: Effect of j on i at ``[i, j]``, in the variables' own units.
        firmness: How often an edge kept its direction, or was found in resamples; same shape.
        believed: Whether the graph may be written.
        reason: In a sentence.
        private: Whether it comes from noised sums.
        shortened: Whether the run's clip norm cut contributions short.
    """

    names: tuple[str, ...]
    order: tuple[int, ...]
    adjacency: Array
    firmness: Array
    believed: bool
    reason: str
    private: bool
    shortened: bool = False

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON; no graph where it is not believed."""
        place = {name: number for number, name in enumerate(self.names)}
        edges = edges_of(self.adjacency, self.names) if self.believed else []
        return {
            "believed": self.believed,
            "reason": self.reason,
            "private": self.private,
            "contributions_shortened": self.shortened,
            "causal_order": [self.names[v] for v in self.order] if self.believed else [],
            "edges": [
                {
                    "cause": cause,
                    "effect": effect,
                    "weight": weight,
                    "firmness": float(self.firmness[place[effect], place[cause]]),
                }
                for cause, effect, weight in edges
            ],
        }


def causes_of_run(run_dir: Path, least_stability: float, seed: int = 0) -> Causes:
    """The graph of a run.

    Args:
        run_dir: The run's folder.
        least_stability: Share of draws of fresh noise in which every edge must keep its direction.
        seed: Public; of the noise that is drawn again.

    Raises:
        BadInput: Not a run of ``abs_lingam`` with ``tally``, or nothing was released yet.
    """
    folder = RunFolder.open(run_dir)
    study = folder.study
    if (study.study.task, study.strategy.name) != ("abs_lingam", "tally"):
        raise BadInput(f"{run_dir}: a run of {study.study.task} with {study.strategy.name}; "
                       "causes needs task abs_lingam and strategy tally")  # fmt: skip
    settings = causal_config(study.task)
    sums = list(released_sums(folder).values())
    verdict = judge(
        [one.total.numpy() for one in sums],
        [float(one.units) for one in sums],
        len(settings.names),
        float(np.sqrt(np.mean([one.deviation**2 for one in sums]))),
        torch.Generator().manual_seed(seed),
        draws=DRAWS,
        least_stability=least_stability,
    )
    return Causes(
        settings.names,
        verdict.order,
        settings.in_own_units(verdict.adjacency),
        verdict.stability,
        verdict.believed,
        verdict.reason,
        private=any(one.deviation for one in sums),
        shortened=study.privacy.clip_norm < SENSITIVITY * (1 - 1e-4),
    )


def causes_of_file(
    path: Path, paired: tuple[Path, Path] | None, resamples: int, seed: int = 0
) -> Causes:
    """The graph of a CSV file, by DirectLiNGAM or, with pairs, by Abs-LiNGAM.

    Args:
        path: Rows; every column but ``id`` and ``patient`` is a variable.
        paired: Files of the same number of rows: the same columns, and the high level's.
        resamples: How often rows are drawn again to say how firm an edge is; 0 for never.
        seed: Public; of the resamples.

    Raises:
        BadInput: A file cannot be used.

    Privacy: exact and about single records; for the house that holds the file.
    """
    names = columns_of(path)
    rows = _table(path, names)
    found: DirectLingam | AbsLingam
    if paired is None:
        found = DirectLingam().fit(rows)
    else:
        low, high = paired
        found = AbsLingam().fit(rows, (_table(low, names), _table(high, columns_of(high))))
    firmness = np.where(found.adjacency_matrix_ != 0, 1.0, 0.0)
    if resamples:
        prior = found.prior_knowledge_ if isinstance(found, AbsLingam) else None
        firmness = bootstrap_probabilities(
            lambda values: DirectLingam(prior).fit(values).adjacency_matrix_,
            rows,
            resamples,
            torch.Generator().manual_seed(seed),
        )
    return Causes(
        names,
        tuple(found.causal_order_),
        found.adjacency_matrix_,
        firmness,
        believed=True,
        reason=f"from {len(rows)} rows as they are; not private",
        private=False,
    )


def columns_of(path: Path) -> tuple[str, ...]:
    """The variables of a CSV file: its header without ``id`` and ``patient``."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path}: cannot be read as CSV") from error
    names = tuple(name for name in header if name not in ("id", "patient"))
    if not names or len(set(names)) != len(names):
        raise BadInput(f"{path}:1: the header is empty or names a column twice")
    return names


def write_causes(causes: Causes, to: Path) -> None:
    """Write the graph's files, if it is believed.

    Raises:
        BadInput: It is not, or the folder exists.
    """
    if not causes.believed:
        raise BadInput(f"{to}: nothing written; {causes.reason}")
    write_graph(causes.adjacency, causes.names, causes.order, to)


def show_causes(console: Console, causes: Causes) -> None:
    """Edges and how firm they are, or why there are none."""
    document = causes.to_json()
    if document["edges"]:
        table = Table("cause", "effect", "weight", "firm")
        for edge in document["edges"]:
            table.add_row(
                edge["cause"], edge["effect"], f"{edge['weight']:.3g}", f"{edge['firmness']:.0%}"
            )
        console.print(table)
    console.print(causes.reason, highlight=False)
    if causes.shortened:
        console.print("clip_norm is below the root of 3: long contributions counted for less")
    console.print(
        "A graph is causal only if nothing unseen causes two variables, effects are linear, noise "
        "is skewed and nothing goes round in a circle.",
        highlight=False,
    )


def _table(path: Path, names: tuple[str, ...]) -> Array:
    """The rows of a file."""
    return np.array([record.content for record in read_rows(path, names)])
