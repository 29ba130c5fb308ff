"""Collective choices from a number a candidate: noised Borda scores or approvals.

Such numbers need less noise than duels and allow one rule, the highest sum. Whoever is ahead in the
sum is ahead in the ranking; how firm that is follows from drawing the noise of the numbers again.
Knows nothing of ballots. Source: as ``strategies.choice.collective``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from wardround.strategies.choice.ballots import Floats
from wardround.strategies.choice.collective import ChoiceSettings, CollectiveChoice
from wardround.strategies.choice.lottery import maximal_lottery
from wardround.strategies.choice.pairwise import best
from wardround.strategies.choice.sites import Site, Weighting, add_up, by_name


def site_of(name: str, scores: Floats, voters: float, deviation: float) -> Site:
    """A site that released scores, as the duels they stand for: differences of scores.

    Args:
        name: The site.
        scores: Shape ``(candidates,)``.
        voters: How many voters the site declares.
        deviation: Standard deviation of the noise on one score; a difference has the root of two
            times that.
    """
    apart = (scores[:, None] - scores[None, :]) / 2
    return Site(name, apart, voters, deviation * math.sqrt(2))


def decide_scores(
    agenda: str,
    candidates: Sequence[str],
    sites: Sequence[Site],
    settings: ChoiceSettings,
    generator: torch.Generator,
) -> CollectiveChoice:
    """The sites' choice on one agenda, by the highest sum of scores.

    Args:
        agenda: Identifier.
        candidates: Texts, in the order of the scores.
        sites: From ``site_of``, one a site.
        settings: How the consortium decides.
        generator: Public randomness, to draw noise again.

    Raises:
        ValueError: A site comes twice, or scores and candidates differ in number.
    """
    by_name(sites)
    wins, deviation = add_up(sites, settings.weighting)
    if len(wins) != len(candidates):
        raise ValueError(f"{agenda}: scores of {len(wins)}, but {len(candidates)} candidates")
    scores = _scores(wins)
    elected = best(scores)
    noise = torch.randn((settings.draws, len(scores)), generator=generator, dtype=torch.float64)
    again = scores + noise.numpy() * deviation / math.sqrt(2)
    firm = sum(best(drawn) == elected for drawn in again) / settings.draws
    return CollectiveChoice(
        agenda=agenda,
        candidates=tuple(candidates),
        wins=wins,
        deviation=deviation,
        winners=elected,
        places=scores,
        stability=firm,
        collective=firm >= settings.least_stability,
        other_rules={},
        other_weightings={str(kind): best(_scores(add_up(sites, kind)[0])) for kind in Weighting},
        lottery=maximal_lottery(wins),
        findings=(),
    )


def _scores(apart: Floats) -> Floats:
    """Scores, but for what they have in common, from their differences."""
    scores: Floats = 2 * np.mean(apart, axis=1)
    return scores
