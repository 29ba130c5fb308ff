"""Cross-entropy beside the pairwise loss on click logs, and what one unit can move in each form.

One row of the table is one federated study of four hospitals through the same runner as ``wardround
run``; both losses share seeds, nets and settings, chosen before they were run. Sensitivities are
measured on a linear scorer and random logs: a unit is taken out and the clipped sum is computed
anew. Source: Durmus et al. (2024), arXiv 2406.02163, whose tables could not be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wardround.client.tasks.pwiser.losses import Pairwise, saddle_rows, unit_mean
from wardround.client.tasks.pwiser.rows import Kinds, against_anchors, within
from wardround.client.workbench import Workbench
from wardround.study.bench.study_rows import (
    Row,
    collect_rows,
    cost,
    run_study,
    summary,
    with_privacy,
)
from wardround.study.config import Study

CLIP_NORM = 0.5
SCORES = ("click_auc", "conversion_auc", "cvr_auc", "conversion_session_auc")
NOISE_SHARES = (0.0, 0.3, 0.6)
EPSILONS: tuple[float | None, ...] = (None, 8.0)
LOSSES = {"BCE": 0.0, "PWiseR": 0.5}  # by the strength of the pairwise part
_UNITS, _ROWS, _WIDTH, _BLOCKS = 8, 5, 3, 3


class Way(StrEnum):
    """How gradients are clipped and which pairs there are."""

    WITHIN = "within"
    BLOCKS = "blocks"
    ANCHORS = "anchors"
    SQUARE = "square"
    NAIVE = "naive"


@dataclass(frozen=True)
class Log:
    """Random exposures: features ``(rows, width)``, outcomes 0 to 2, and the unit of each."""

    features: Tensor
    outcomes: Tensor
    unit: Tensor
    units: int

    def without(self, gone: int) -> Log:
        """The same log less one unit; the others keep their numbers."""
        kept = self.unit != gone
        return Log(self.features[kept], self.outcomes[kept], self.unit[kept], self.units)

    @property
    def kinds(self) -> Kinds:
        """Which rows were taken up, only looked at, or neither."""
        return Kinds(self.outcomes == 2, self.outcomes == 1, self.outcomes == 0)


def neighbours(count: int, seed: int) -> Iterator[tuple[Log, int]]:
    """So many pairs of a random log and the unit that is taken out of it."""
    generator = torch.Generator().manual_seed(seed)
    unit = torch.arange(_UNITS).repeat_interleave(_ROWS)
    for number in range(count):
        scale = 3.0 ** (number % 3)
        features = scale * torch.randn(len(unit), _WIDTH, generator=generator, dtype=torch.float64)
        outcomes = torch.randint(0, 3, (len(unit),), generator=generator)
        yield Log(features, outcomes, unit, _UNITS), number % _UNITS


def largest_move(way: Way, count: int, seed: int) -> float:
    """The most that one unit moved the clipped sum, over ``count`` random neighbours."""
    most = 0.0
    for log, gone in neighbours(count, seed):
        moved = clipped_sum(way, log) - clipped_sum(way, log.without(gone))
        most = max(most, float(moved.norm()))
    return most


def clipped_sum(way: Way, log: Log) -> Tensor:
    """The sum of clipped gradients of a linear scorer's weights at a fixed point."""
    weights = torch.linspace(-0.5, 0.5, _WIDTH, dtype=torch.float64).requires_grad_(True)
    scores = (log.features @ weights).sigmoid()
    pairwise = Pairwise(margin_click=0.4, margin_skip=0.8)
    if way is Way.NAIVE:
        terms = _naive_terms(pairwise, scores, log.kinds)
    elif way is Way.BLOCKS:
        terms = within(pairwise, scores, log.kinds, log.unit % _BLOCKS, _BLOCKS)
    elif way is Way.ANCHORS:
        terms = against_anchors(pairwise, scores, log.kinds, log.unit, log.units)
    elif way is Way.SQUARE:
        values = torch.tensor([0.6, 0.4, -0.2], dtype=torch.float64).expand(len(scores), 3)
        kinds = log.kinds
        rows = saddle_rows(0.4, scores, kinds.converted, kinds.clicked, values, (0.3, 0.3))
        terms = unit_mean(rows, log.unit, log.units)
    else:
        terms = within(pairwise, scores, log.kinds, log.unit, log.units)
    total = torch.zeros(_WIDTH, dtype=torch.float64)
    for term in terms:
        (gradient,) = torch.autograd.grad(term, weights, retain_graph=True)
        total += gradient * min(1.0, CLIP_NORM / max(float(gradient.norm()), 1e-12))
    return total


def _naive_terms(pairwise: Pairwise, scores: Tensor, kinds: Kinds) -> Tensor:
    """Broken on purpose: each conversion's pairs with everybody's clicks and skips, one a term."""
    lead = scores[kinds.converted].unsqueeze(1)
    costs = [
        (margin - (lead - scores[rows])).clamp(min=0).mean(1)
        for rows, margin in (
            (kinds.clicked, pairwise.margin_click),
            (kinds.skipped, pairwise.margin_skip),
        )
        if bool(rows.any())
    ]
    return torch.stack(costs).sum(0) if costs else lead.new_zeros(0)


def sensitivity_benchmark(count: int = 10_000, seed: int = 0) -> dict[str, Any]:
    """The largest move of every way over ``count`` random neighbours, in clip norms."""
    return {
        "neighbours": count,
        "clip_norm": CLIP_NORM,
        "largest_move_in_clip_norms": {
            way.value: round(largest_move(way, count, seed) / CLIP_NORM, 4) for way in Way
        },
    }


@dataclass(frozen=True)
class Arm:
    """A loss on logs with a share of clicks by chance.

    Attributes:
        loss: As the table calls it.
        strength: Of its pairwise part.
        noise_share: Of the clicks without enrolment, those made by chance.
    """

    loss: str
    strength: float
    noise_share: float

    @property
    def name(self) -> str:
        """As the table's rows call it."""
        return f"{self.loss}, noise {self.noise_share}"


def pwiser_benchmark(
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    out: Path | None = None,
    noise_shares: Sequence[float] = NOISE_SHARES,
    epsilons: Sequence[float | None] = EPSILONS,
    shrink: Callable[[Study], Study] = lambda study: study,
    say: Callable[[str], object] = lambda line: None,
) -> dict[str, Any]:
    """The tables of docs/pwiser.md.

    Args:
        seeds: Public seeds; each draws logs, probes and first values of its own.
        out: Rows are appended here as JSON lines when they are known; those in it are not run.
        noise_shares: Shares of clicks by chance.
        epsilons: Of every patient of every hospital; None without privacy.
        shrink: Changes the example study, for tests.
        say: Told each row.

    Returns:
        ``rows``, one a seed, loss, noise share and epsilon; ``summary``, means over seeds;
        ``ahead``, on how many seeds the pairwise loss scored higher than cross-entropy.
    """
    arms = [Arm(*loss, share) for share in noise_shares for loss in LOSSES.items()]
    with Workbench() as workbench:

        def run(arm: Arm, epsilon: float | None, seed: int) -> Row:
            def change(study: Study) -> Study:
                study = with_privacy(shrink(study), epsilon, seed)
                task: dict[str, Any] = dict(study.task)
                task |= {"pairwise": {**task["pairwise"], "strength": arm.strength}}
                task |= {"generated": {**task["generated"], "noise_share": arm.noise_share}}
                return replace(study, task=task)

            outcome = run_study("pwiser", change, workbench)
            return {name: round(outcome.after[name], 4) for name in SCORES} | cost(outcome)

        rows = collect_rows(arms, epsilons, seeds, run, out, say)
    return {"rows": rows, "summary": summary(rows, SCORES), "ahead": ahead(rows, noise_shares)}


def ahead(rows: Sequence[Row], noise_shares: Sequence[float]) -> list[Row]:
    """Of the seeds that both losses ran, on how many the pairwise one scored higher."""
    known = {(row["method"], row["epsilon"], row["seed"]): row for row in rows}
    plain, pairwise = LOSSES
    found = []
    for epsilon, share in product(dict.fromkeys(row["epsilon"] for row in rows), noise_shares):
        pairs = [
            (known[f"{plain}, noise {share}", epsilon, seed], row)
            for (method, its, seed), row in known.items()
            if (method, its) == (f"{pairwise}, noise {share}", epsilon)
            and (f"{plain}, noise {share}", epsilon, seed) in known
        ]
        line: Row = {"noise_share": share, "epsilon": epsilon, "seeds": len(pairs)}
        line |= {name: sum(one[name] > other[name] for other, one in pairs) for name in SCORES}
        found.append(line)
    return found
