"""From sites' duels to a collective choice: winners, ranking, its firmness, and pairs to tune on.

A choice that fresh noise of the declared size would often overturn is not called collective, and
no preference pair comes from it. Everything here is post-processing of what the sites released.
Source: Conitzer et al. (2024), reinforcement learning from collective human feedback with
aggregated rankings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from wardround.strategies.choice.axioms import Finding, examine
from wardround.strategies.choice.ballots import Floats
from wardround.strategies.choice.lottery import maximal_lottery
from wardround.strategies.choice.pairwise import Winners, margins
from wardround.strategies.choice.rules import (
    APPROVAL,
    DUEL_RULES,
    require_rule,
    scores,
    winners,
)
from wardround.strategies.choice.sites import Site, Weighting, add_up, by_name
from wardround.strategies.choice.stability import pair_stability, stability


@dataclass(frozen=True)
class ChoiceSettings:
    """How a consortium decides; agreed and published before ballots are cast.

    Attributes:
        rule: Name of a rule on duels, or ``approval``.
        weighting: Whose voice counts how much.
        least_stability: Share of draws of fresh noise in which the winners must stay the same for
            the choice to be called collective, and the least probability for one of its pairs.
        draws: How often noise is drawn again.
        most_pairs: Pairs exported from one agenda at most, the clearest first, so that an agenda
            with many candidates does not drown the others.
        least_margin: Pairs with a smaller margin are left out.
    """

    rule: str = "split-cycle"
    weighting: Weighting = Weighting.VOTER
    least_stability: float = 0.8
    draws: int = 500
    most_pairs: int = 3
    least_margin: float = 0.0

    def __post_init__(self) -> None:
        require_rule(self.rule)
        known = (*DUEL_RULES, APPROVAL)
        if self.rule not in known:
            raise ValueError(f"rule is {self.rule!r}; one of {', '.join(known)}")
        if not 0 <= self.least_stability <= 1:
            raise ValueError(f"least_stability is {self.least_stability}; it must be in [0, 1]")
        for name in ("draws", "most_pairs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if not self.least_margin >= 0:
            raise ValueError(f"least_margin is {self.least_margin}; it must be 0 or more")


@dataclass(frozen=True, eq=False)
class CollectiveChoice:
    """What the sites together decided on one agenda.

    Attributes:
        agenda: Identifier of the agenda.
        candidates: Texts of the candidates.
        wins: Weighted duels, as released.
        deviation: Standard deviation of the noise on one margin.
        winners: By the agreed rule and weighting.
        places: A number for each candidate, higher is better; equal numbers are ties.
        stability: Share of draws of fresh noise that leave the winners as they are.
        collective: Whether that is enough to speak of a collective choice.
        other_rules: Winners by every other rule, with the agreed weighting.
        other_weightings: Winners by the agreed rule, with every weighting.
        lottery: The maximal lottery.
        findings: The axioms on this profile.
    """

    agenda: str
    candidates: tuple[str, ...]
    wins: Floats
    deviation: float
    winners: Winners
    places: Floats
    stability: float
    collective: bool
    other_rules: Mapping[str, Winners]
    other_weightings: Mapping[str, Winners]
    lottery: Floats
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON."""
        return {
            **asdict(self),
            "wins": self.wins.tolist(),
            "places": self.places.tolist(),
            "lottery": self.lottery.tolist(),
        }


def decide(
    agenda: str,
    candidates: Sequence[str],
    sites: Sequence[Site],
    settings: ChoiceSettings,
    generator: torch.Generator,
    clones: Sequence[frozenset[int]] = (),
) -> CollectiveChoice:
    """The sites' choice on one agenda.

    Args:
        agenda: Identifier.
        candidates: Texts, in the order of the duels.
        sites: One submission a site.
        settings: How the consortium decides.
        generator: Public randomness, to draw noise again.
        clones: Sets of candidates declared to be near-copies.

    Raises:
        ValueError: A site comes twice, or duels and candidates differ in number.
    """
    by_name(sites)
    wins, deviation = add_up(sites, settings.weighting)
    if len(wins) != len(candidates):
        raise ValueError(f"{agenda}: duels of {len(wins)}, but {len(candidates)} candidates")
    firm = stability(settings.rule, wins, deviation, settings.draws, generator)
    return CollectiveChoice(
        agenda=agenda,
        candidates=tuple(candidates),
        wins=wins,
        deviation=deviation,
        winners=winners(settings.rule, wins),
        places=scores(settings.rule, wins),
        stability=firm,
        collective=firm >= settings.least_stability,
        other_rules={name: winners(name, wins) for name in DUEL_RULES if name != settings.rule},
        other_weightings={
            str(kind): winners(settings.rule, add_up(sites, kind)[0]) for kind in Weighting
        },
        lottery=maximal_lottery(wins),
        findings=examine(settings.rule, sites, settings.weighting, clones),
    )


def preference_pairs(
    choice: CollectiveChoice, prompt: str, settings: ChoiceSettings, sites: int
) -> list[dict[str, Any]]:
    """Chosen and rejected texts that the collective ranking orders firmly, the clearest first.

    Empty when the choice is not collective. Each pair is ordered by the collective ranking, must be
    won by the chosen text, and would have to stay so under fresh noise.
    """
    if not choice.collective:
        return []
    margin, firm = margins(choice.wins), pair_stability(choice.wins, choice.deviation)
    ordered = [
        (float(margin[i, j]), i, j)
        for i in range(len(margin))
        for j in range(len(margin))
        if choice.places[i] > choice.places[j]
        and margin[i, j] > settings.least_margin
        and firm[i, j] >= settings.least_stability
    ]
    ordered.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    return [
        {
            "prompt": prompt,
            "chosen": choice.candidates[i],
            "rejected": choice.candidates[j],
            "margin": size,
            "margin_deviation": choice.deviation,
            "stability": float(firm[i, j]),
            "rule": settings.rule,
            "agenda": choice.agenda,
            "sites": sites,
        }
        for size, i, j in ordered[: settings.most_pairs]
    ]
