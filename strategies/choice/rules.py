"""The rules by name, and what each may be given: duels, which survive noise, or whole ballots."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from wardround.privacy.errors import BadInput
from wardround.privacy.tables import nearest
from wardround.strategies.choice.ballots import Floats, Profile
from wardround.strategies.choice.elimination import instant_runoff, plurality
from wardround.strategies.choice.lottery import maximal_lottery
from wardround.strategies.choice.pairwise import (
    Winners,
    borda,
    copeland,
    minimax,
    ranked_pairs,
    schulze,
    split_cycle,
)


@dataclass(frozen=True)
class Promise:
    """What is proven of a rule for every profile; a report checks one profile, this is theory.

    Attributes:
        condorcet: A candidate that beats every other wins.
        avoids_loser: A candidate that loses to every other does not win.
        clones: Near-copies of a candidate change nothing for the others.
        monotone: Being ranked higher does not cost a candidate the win.
        participation: Voting does not make the result worse for the one who votes.
    """

    condorcet: bool
    avoids_loser: bool
    clones: bool
    monotone: bool
    participation: bool


# Textbook results (Zwicker 2016, "Introduction to the theory of voting"; Schulze 2011; Holliday and
# Pacuit 2023; Brandl et al. 2016 for lotteries).
PROMISES: Mapping[str, Promise] = {
    "plurality": Promise(False, False, False, True, True),
    "borda": Promise(False, True, False, True, True),
    "copeland": Promise(True, True, False, True, False),
    "minimax": Promise(True, False, False, True, False),
    "ranked-pairs": Promise(True, True, True, True, False),
    "schulze": Promise(True, True, True, True, False),
    "split-cycle": Promise(True, True, True, True, False),
    "maximal-lottery": Promise(True, True, True, False, True),
    "instant-runoff": Promise(False, True, True, False, False),
}

_BY_DUELS: Mapping[str, Callable[[Floats], Winners]] = {
    "borda": borda,
    "copeland": copeland,
    "minimax": minimax,
    "ranked-pairs": ranked_pairs,
    "schulze": schulze,
    "split-cycle": split_cycle,
}
_BY_BALLOTS: Mapping[str, Callable[[Profile], Winners]] = {
    "plurality": plurality,
    "instant-runoff": instant_runoff,
}
DUEL_RULES = (*_BY_DUELS, "maximal-lottery")
APPROVAL = "approval"  # most marks; from released approvals alone
BALLOT_RULES = tuple(_BY_BALLOTS)


def winners(rule: str, wins: Floats) -> Winners:
    """Who wins by ``rule``, from the duels alone.

    For the maximal lottery: everybody with a chance.

    Raises:
        BadInput: The rule is unknown, or needs ballots.
    """
    if rule == "maximal-lottery":
        return tuple(int(i) for i in np.flatnonzero(maximal_lottery(wins) > 1e-6))
    if rule in _BY_BALLOTS:
        raise BadInput(
            f"rule is {rule!r}: it needs whole ballots, which do not survive noise; use one of "
            f"{', '.join(DUEL_RULES)}"
        )
    if rule == APPROVAL:
        raise BadInput(f"rule is {rule!r}: it needs approvals, which duels do not tell")
    return _BY_DUELS[require_rule(rule)](wins)


def winners_of_ballots(rule: str, profile: Profile) -> Winners:
    """Who wins by ``rule``, from the ballots."""
    if rule in _BY_BALLOTS:
        return _BY_BALLOTS[rule](profile)
    return winners(rule, profile.wins())


def require_rule(rule: str) -> str:
    """``rule``, or ``BadInput`` suggesting the nearest when there is no such rule."""
    known = (*DUEL_RULES, APPROVAL, *BALLOT_RULES)
    if rule not in known:
        raise BadInput(f"rule is {rule!r}: no such rule{nearest(rule, list(known))}")
    return rule


def scores(rule: str, wins: Floats) -> Floats:
    """A number for each candidate that orders all of them as ``rule`` does its winners.

    The rule is applied again and again to whoever is left; a candidate's number is the negative of
    the turn in which it wins, so that a collective ranking exists for every rule.
    """
    left = list(range(len(wins)))
    turns = np.zeros(len(wins))
    turn = 0
    while left:
        chosen = winners(rule, wins[np.ix_(left, left)])
        for position in chosen:
            turns[left[position]] = -turn
        left = [c for position, c in enumerate(left) if position not in set(chosen)]
        turn += 1
    return turns
