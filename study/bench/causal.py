"""Causal graphs: what the abstraction saves, what noise leaves of an order, and proteins.

Three tables of docs/abs-lingam.md. Speed and accuracy of Abs-LiNGAM beside DirectLiNGAM, both ours;
directions found from noised moments by variables, rows, epsilon and hospitals; and, where Sachs et
al.'s (2005) measurements are at hand, the graph found in them beside the accepted one. Knows
nothing of how graphs are found.
"""

from __future__ import annotations

import math
import re
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wardround.privacy.accountant import calibrate
from wardround.privacy.errors import BadInput
from wardround.privacy.mechanisms import PrivacyPlan
from wardround.privacy.units import Unit
from wardround.strategies.causal.abstraction import AbsLingam
from wardround.strategies.causal.lingam import DirectLingam
from wardround.strategies.causal.moments import (
    SENSITIVITY,
    contributions,
    judge,
    monomials,
    scale_rows,
)
from wardround.strategies.causal.scores import graph_scores, order_agreement, prior_scores
from wardround.strategies.causal.systems import (
    Array,
    Shape,
    random_dag,
    random_system,
    total_effects,
)

DELTA = 1e-5
SHAPES = {
    "5 blocks of 5 to 10": Shape(),
    "10 blocks of 3 to 5": Shape(blocks=10, edges=20, least=3, most=5),
}
ROWS = (2_000, 20_000, 100_000)
SETTINGS: tuple[tuple[float, int], ...] = (
    (math.inf, 1), (16.0, 5), (4.0, 1), (4.0, 5), (1.0, 1), (1.0, 5),
)  # fmt: skip


def causal_benchmark(
    seeds: int = 5,
    data: Path | None = None,
    say: Callable[[str], object] = lambda line: None,
) -> dict[str, Any]:
    """All tables.

    Args:
        seeds: Systems of the speed table; the private one takes twice as many.
        data: A folder with ``sachs_2005_continuous.tsv`` and ``sachs_2005_graph.txt``, or None.
        say: Told each row.
    """
    found: dict[str, Any] = {"speed": {}, "speed_means": {}}
    for name, shape in SHAPES.items():
        rows = speed_rows(range(seeds), shape, 2000, say)
        found["speed"][name] = rows
        found["speed_means"][name] = {
            key: round(statistics.fmean(row[key] for row in rows), 4)
            for key in rows[0]
            if key != "seed"
        }
    found["private"] = private_rows(range(2 * seeds), say=say)
    if data is not None:
        found["sachs"] = sachs_rows(data)
    return found


def speed_rows(
    seeds: Sequence[int], shape: Shape, rows: int, say: Callable[[str], object]
) -> list[dict[str, Any]]:
    """Abs-LiNGAM beside DirectLiNGAM on random systems, columns shuffled and standardised."""
    found = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        system = random_system(shape, generator)
        order = torch.randperm(len(system.low), generator=generator).numpy()
        truth = system.low.T[np.ix_(order, order)]
        values, below = system.draw(rows, generator), system.draw(3 * len(order), generator)
        paired = below[:, order], below @ system.tau
        clock = time.process_time()
        direct = DirectLingam().fit(values[:, order])
        middle = time.process_time()
        both = AbsLingam().fit(values[:, order], paired)
        end = time.process_time()
        row: dict[str, Any] = {"seed": seed, "variables": len(order)}
        row |= {"direct_s": round(middle - clock, 2), "abs_s": round(end - middle, 2)}
        row["ratio"] = round((middle - clock) / (end - middle), 3)
        for name, model in (("direct", direct), ("abs", both)):
            scores = graph_scores(model.adjacency_matrix_, truth)
            row |= {f"{name}_{key}": round(scores[key], 4) for key in ("auc", "f1")}
        prior = prior_scores(both.prior_knowledge_, truth)
        row |= {f"prior_{key}": round(value, 4) for key, value in prior.items()}
        say(str(row))
        found.append(row)
    return found


def private_rows(
    seeds: Sequence[int],
    sizes: Sequence[int] = (4, 8),
    rows: Sequence[int] = ROWS,
    settings: Sequence[tuple[float, int]] = SETTINGS,
    say: Callable[[str], object] = lambda line: None,
) -> list[dict[str, Any]]:
    """Directions found from moments, each hospital adding its own noise.

    Columns have variance 1 by construction, which stands for well-chosen public scales.
    """
    noise = {epsilon: noise_multiplier(epsilon) for epsilon, _ in settings}
    found = []
    for size in sizes:
        for count in rows:
            systems = [_system(size, count, seed) for seed in seeds]
            for epsilon, hospitals in settings:
                shares, whole, believed, misled = [], 0, 0, 0
                for seed, (total, truth) in zip(seeds, systems, strict=True):
                    deviation = noise[epsilon] * SENSITIVITY
                    generator = torch.Generator().manual_seed(seed)
                    parts = _noised(total, hospitals, deviation, generator)
                    each = [count / hospitals] * hospitals
                    verdict = judge(parts, each, size, deviation, generator, draws=20)
                    share = order_agreement(list(verdict.order), truth)
                    shares.append(share)
                    whole += share == 1
                    believed += verdict.believed
                    wrong = (verdict.adjacency != 0) & (truth.T != 0)
                    misled += verdict.believed and bool(wrong.any())
                row = {
                    "variables": size,
                    "rows": count,
                    "epsilon": None if math.isinf(epsilon) else epsilon,
                    "hospitals": hospitals,
                    "directions": round(statistics.fmean(shares), 3),
                    "all_right": round(whole / len(shares), 3),
                    "believed": round(believed / len(shares), 3),
                    "believed_reversed": round(misled / len(shares), 3),
                }
                say(str(row))
                found.append(row)
    return found


def noise_multiplier(epsilon: float) -> float:
    """Of one release of all moments at this epsilon and ``DELTA``, as a study calibrates it."""
    if math.isinf(epsilon):
        return 0.0
    return calibrate(
        lambda noise: PrivacyPlan(Unit.RECORD, SENSITIVITY, noise, 1.0, 1, 1.0).event,
        epsilon,
        DELTA,
    )


def sachs_rows(folder: Path) -> list[dict[str, Any]]:
    """DirectLiNGAM on Sachs et al.'s proteins, raw and in logarithms, beside the accepted graph.

    Raises:
        BadInput: A file is missing.
    """
    names, values, truth = read_sachs(folder)
    found = []
    for name, table in (("raw", values), ("logarithms", np.log(values))):
        model = DirectLingam().fit(table)
        scores = graph_scores(model.adjacency_matrix_, truth)
        found.append(
            {
                "data": name,
                "rows": len(table),
                "variables": len(names),
                "true_edges": int(truth.sum()),
                "found_edges": int((model.adjacency_matrix_ != 0).sum()),
                "directions": round(order_agreement(model.causal_order_, truth), 3),
                **{key: round(value, 3) for key, value in scores.items()},
            }
        )
    return found


def read_sachs(folder: Path) -> tuple[list[str], Array, Array]:
    """Names, measurements, and the accepted graph as ``[to, from]``."""
    try:
        text = (folder / "sachs_2005_continuous.tsv").read_text(encoding="utf-8").splitlines()
        graph = (folder / "sachs_2005_graph.txt").read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{folder}: holds no Sachs data ({error})") from error
    names = text[0].split("\t")
    values = np.array([list(map(float, line.split("\t"))) for line in text[1:] if line.strip()])
    truth = np.zeros((len(names),) * 2)
    for cause, effect in re.findall(r"(\w+) --> (\w+)", graph):
        truth[names.index(effect), names.index(cause)] = 1.0
    return names, values, truth


def _system(size: int, rows: int, seed: int) -> tuple[Array, Array]:
    """Summed contributions of rows of a random system of variance 1, and its graph."""
    generator = torch.Generator().manual_seed(seed)
    edges = min(round(2.5 * size / 2), math.comb(size, 2))
    weights = random_dag(size, edges, generator)
    effects = total_effects(weights)
    effects = effects / np.sqrt((effects**2).sum(axis=0))
    total = np.zeros(len(monomials(size)[0]))
    for start in range(0, rows, 10_000):
        part = (min(10_000, rows - start), size)
        uniform = torch.rand(part, generator=generator, dtype=torch.float64).numpy()
        values = (-np.log1p(-uniform) - 1) @ effects
        scaled = scale_rows(values, np.zeros(size), np.ones(size), 2.5 * math.sqrt(size))
        total += contributions(scaled).sum(axis=0)
    return total, weights.T


def _noised(
    total: Array, hospitals: int, deviation: float, generator: torch.Generator
) -> list[Array]:
    """The total as equal shares of hospitals, each with its own noise."""
    draws = torch.randn((hospitals, len(total)), generator=generator, dtype=torch.float64).numpy()
    return [total / hospitals + deviation * draw for draw in draws]
