"""What can be said against a choice on this very profile: axioms checked, not promised.

A rule that breaks an axiom somewhere may keep it here, and the report says only what happened here:
"violated" or "not violated on this profile". All checks work from the sites' duels, so they work
on noised ones; with noise a violation may be the noise's. Source: the axioms of Zwicker (2016),
"Introduction to the theory of voting"; clones after Tideman (1987).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np

from wardround.strategies.choice.ballots import Floats
from wardround.strategies.choice.pairwise import (
    Winners,
    condorcet_loser,
    condorcet_winner,
    margins,
    smith_set,
)
from wardround.strategies.choice.rules import winners
from wardround.strategies.choice.sites import Site, Weighting, add_up, unanimous

MOST_MANIPULATED = 5  # candidates: a site's every unanimous report is tried, 120 of them


@dataclass(frozen=True)
class Finding:
    """One axiom on one profile.

    Attributes:
        axiom: Its name.
        violated: Whether it was broken here.
        detail: What happened, in a sentence.
    """

    axiom: str
    violated: bool
    detail: str


def examine(
    rule: str,
    sites: Sequence[Site],
    weighting: Weighting,
    clones: Sequence[frozenset[int]] = (),
) -> tuple[Finding, ...]:
    """Every check there is for ``rule`` on these duels.

    Args:
        rule: Name of a rule on duels.
        sites: Who submitted what.
        weighting: Whose voice counts how much.
        clones: Sets of candidates declared to be near-copies of one another.
    """
    wins, _ = add_up(sites, weighting)
    elected = winners(rule, wins)
    return (
        _condorcet(wins, elected),
        _condorcet_loser(wins, elected),
        _smith(wins, elected),
        _pareto(sites, elected),
        _clones(rule, wins, elected, clones),
        _monotone(rule, sites, weighting, elected),
        _participation(rule, sites, weighting, elected),
        _reinforcement(rule, sites, elected),
        _manipulation(rule, sites, weighting, elected),
    )


def _condorcet(wins: Floats, elected: Winners) -> Finding:
    """Whoever beats everybody must win."""
    best = condorcet_winner(wins)
    if best is None:
        return Finding("condorcet winner", False, "no candidate beats every other")
    return Finding("condorcet winner", elected != (best,), f"candidate {best} beats every other")


def _condorcet_loser(wins: Floats, elected: Winners) -> Finding:
    """Whoever loses to everybody must not win."""
    worst = condorcet_loser(wins)
    if worst is None:
        return Finding("condorcet loser", False, "no candidate loses to every other")
    return Finding("condorcet loser", worst in elected, f"candidate {worst} loses to every other")


def _smith(wins: Floats, elected: Winners) -> Finding:
    """Winners should come from the smallest set that beats everybody outside it."""
    members = smith_set(wins)
    outside = sorted(set(elected) - set(members))
    return Finding("smith set", bool(outside), f"the set is {list(members)}, outside: {outside}")


def _pareto(sites: Sequence[Site], elected: Winners) -> Finding:
    """Nobody may win whom every single voter ranks below one and the same other candidate."""
    total = margins(np.sum([site.wins for site in sites], axis=0))
    voters = sum(site.voters for site in sites)
    dominated = [(i, j) for i in elected for j in range(len(total)) if total[j, i] >= voters - 1e-9]
    detail = f"all voters rank {dominated[0][1]} above {dominated[0][0]}" if dominated else "none"
    return Finding("pareto", bool(dominated), detail)


def _clones(rule: str, wins: Floats, elected: Winners, clones: Sequence[frozenset[int]]) -> Finding:
    """Striking out one of several near-copies must not change who else wins."""
    for group in clones:
        for removed in sorted(group):
            left = [i for i in range(len(wins)) if i != removed]
            after = {left[k] for k in winners(rule, wins[np.ix_(left, left)])}
            others_before, others_after = set(elected) - group, after - group
            clone_before, clone_after = bool(set(elected) & group), bool(after & group)
            if others_before != others_after or (len(group) > 1 and clone_before != clone_after):
                detail = f"without {removed} of {sorted(group)} the winners are {sorted(after)}"
                return Finding("clones", True, detail)
    return Finding("clones", False, f"{len(clones)} declared groups, each candidate struck out")


def _monotone(rule: str, sites: Sequence[Site], weighting: Weighting, elected: Winners) -> Finding:
    """Ranking the winner first at one whole site must not make it lose."""
    for winner in elected:
        for number, site in enumerate(sites):
            lifted = margins(site.wins) / 2
            firm = np.maximum(lifted[winner], site.voters / 2)  # noise may have gone beyond
            lifted[winner, :], lifted[:, winner] = firm, -firm
            lifted[winner, winner] = 0.0
            after = _with(rule, sites, weighting, number, lifted)
            if winner not in after:
                detail = f"lifting {winner} at {site.name} makes {list(after)} win"
                return Finding("monotonicity", True, detail)
    return Finding("monotonicity", False, "each winner lifted to the top at each site in turn")


def _participation(
    rule: str, sites: Sequence[Site], weighting: Weighting, elected: Winners
) -> Finding:
    """No site should be better off, by its own duels, had it stayed away."""
    hurt, decisive = [], []
    for number, site in enumerate(sites):
        others = [*sites[:number], *sites[number + 1 :]]
        if not others:
            continue
        without = winners(rule, add_up(others, weighting)[0])
        if without != elected:
            decisive.append(site.name)
        if _prefers(site.wins, without, elected):
            hurt.append(site.name)
    detail = f"better off absent: {hurt}; winner changes without: {decisive}"
    return Finding("participation", bool(hurt), detail)


def _reinforcement(rule: str, sites: Sequence[Site], elected: Winners) -> Finding:
    """Winners that all sites share when each decides alone must win together."""
    alone = [set(winners(rule, site.wins)) for site in sites]
    shared = set.intersection(*alone)
    broken = bool(shared) and shared != set(elected)
    return Finding("reinforcement", broken, f"every site alone would elect {sorted(shared)}")


def _manipulation(
    rule: str, sites: Sequence[Site], weighting: Weighting, elected: Winners
) -> Finding:
    """How many unanimous reports would get a site a winner it prefers, by its own duels."""
    candidates = len(sites[0].wins)
    if candidates > MOST_MANIPULATED:
        detail = f"not tried: {candidates} candidates, at most {MOST_MANIPULATED}"
        return Finding("manipulation", False, detail)
    found = [
        (site.name, after)
        for number, site in enumerate(sites)
        for after in _reports(rule, sites, weighting, number)
        if _prefers(site.wins, after, elected)
    ]
    who = sorted({name for name, _ in found})
    return Finding("manipulation", bool(found), f"{len(found)} profitable reports, by {who}")


def _reports(
    rule: str, sites: Sequence[Site], weighting: Weighting, number: int
) -> Iterator[Winners]:
    """The winners under every unanimous report of one site."""
    site = sites[number]
    for order in permutations(range(len(site.wins))):
        yield _with(rule, sites, weighting, number, unanimous(order, site.voters))


def _with(
    rule: str, sites: Sequence[Site], weighting: Weighting, number: int, wins: Floats
) -> Winners:
    """The winners when one site submits ``wins`` instead."""
    changed = list(sites)
    changed[number] = replace(sites[number], wins=wins)
    return winners(rule, add_up(changed, weighting)[0])


def _prefers(own: Floats, new: Winners, old: Winners) -> bool:
    """Whether a site's own duels rank one sole winner above the other."""
    if len(new) != 1 or len(old) != 1 or new == old:
        return False
    return bool(margins(own)[new[0], old[0]] > 1e-9)
