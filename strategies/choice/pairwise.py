"""Rules that need only who beats whom and by how much: the rules that survive noise on the counts.

Every rule takes the matrix of wins, whose entry (i, j) says how many voters rank i above j; noise
may have made it negative or fractional, and only the margins ``wins - wins.T`` matter. A rule
returns all candidates it ties for first place, in ascending order.

Sources: Borda (1784); Copeland (1951), ties counting one half; Simpson (1969) and Kramer (1977) for
minimax by margins; Tideman (1987) for Ranked Pairs; Schulze (2011), margins variant; Holliday and
Pacuit (2023) for Split Cycle, lemma on strongest paths.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wardround.strategies.choice.ballots import Floats

Winners = tuple[int, ...]
_SAME = 1e-9  # scores closer than this are a tie: sums of halves and thirds round


def margins(wins: Floats) -> Floats:
    """Entry (i, j): by how many voters i beats j; antisymmetric.

    Raises:
        ValueError: ``wins`` is not a square matrix of finite numbers.
    """
    if wins.ndim != 2 or wins.shape[0] != wins.shape[1] or not wins.size:
        raise ValueError(f"wins has shape {wins.shape}; it must be square")
    if not np.isfinite(wins).all():
        raise ValueError("wins holds a number that is not finite")
    return wins - wins.T


def borda_scores(wins: Floats) -> Floats:
    """Votes won over all duels, shape ``(candidates,)``."""
    margins(wins)
    off_diagonal = wins * (1 - np.eye(len(wins)))
    scores: Floats = off_diagonal.sum(axis=1)
    return scores


def borda(wins: Floats) -> Winners:
    """The candidates whose margins over all others add up to most."""
    return best(margins(wins).sum(axis=1))


def copeland_scores(wins: Floats) -> Floats:
    """Duels won plus half the duels tied, shape ``(candidates,)``."""
    signs = np.sign(np.where(np.abs(margins(wins)) < _SAME, 0, margins(wins)))
    scores: Floats = ((signs + 1) / 2).sum(axis=1) - 0.5  # the half point for oneself
    return scores


def copeland(wins: Floats) -> Winners:
    """The candidates that win most duels, a tied duel counting one half."""
    return best(copeland_scores(wins))


def minimax(wins: Floats) -> Winners:
    """The candidates whose worst defeat is smallest."""
    return best(-margins(wins).max(axis=0))


def ranked_pairs(wins: Floats, order: Sequence[int] | None = None) -> Winners:
    """The candidate left on top when duels are locked in from the clearest, cycles left out.

    Args:
        wins: Who beats whom.
        order: Candidates in the order that breaks ties between equal margins; it must be published
            before ballots are cast. By default as numbered, which favours low numbers in ties.
    """
    margin = margins(wins)
    place = np.argsort(np.arange(len(margin)) if order is None else np.array(order))
    duels = [(i, j) for i, j in np.argwhere(margin > _SAME)]
    duels.sort(key=lambda duel: (-round(float(margin[duel]), 9), place[duel[0]], place[duel[1]]))
    reaches = np.eye(len(margin), dtype=np.bool_)
    beaten = np.zeros(len(margin), dtype=np.bool_)
    for winner, loser in duels:
        if not reaches[loser, winner]:
            reaches |= np.outer(reaches[:, winner], reaches[loser])
            beaten[loser] = True
    return tuple(int(i) for i in np.flatnonzero(~beaten))


def strongest_paths(wins: Floats) -> Floats:
    """Entry (i, j): the weakest duel on the strongest path from i to j; 0 without a path."""
    strength = np.maximum(margins(wins), 0.0)
    for via in range(len(strength)):
        through = np.minimum(strength[:, via, None], strength[None, via, :])
        strength = np.maximum(strength, through)
    np.fill_diagonal(strength, 0.0)
    return strength


def schulze(wins: Floats) -> Winners:
    """The candidates whose strongest path to each other is as strong as the one back."""
    paths = strongest_paths(wins)
    return tuple(int(i) for i in np.flatnonzero((paths >= paths.T - _SAME).all(axis=1)))


def split_cycle(wins: Floats) -> Winners:
    """The candidates nobody beats once every cycle has lost its weakest duels."""
    margin = margins(wins)
    defeats = (margin > _SAME) & (margin > strongest_paths(wins).T + _SAME)
    return tuple(int(i) for i in np.flatnonzero(~defeats.any(axis=0)))


def condorcet_winner(wins: Floats) -> int | None:
    """The candidate that beats every other, if there is one."""
    beats = margins(wins) > _SAME
    found = np.flatnonzero(beats.sum(axis=1) == len(wins) - 1)
    return int(found[0]) if len(found) else None


def condorcet_loser(wins: Floats) -> int | None:
    """The candidate that every other beats, if there is one."""
    return condorcet_winner(wins.T)


def smith_set(wins: Floats) -> Winners:
    """The smallest set whose members beat everybody outside it."""
    reaches = margins(wins) > -_SAME
    for via in range(len(wins)):
        reaches |= np.outer(reaches[:, via], reaches[via])
    return tuple(int(i) for i in np.flatnonzero(reaches.all(axis=1)))


def best(scores: Floats) -> Winners:
    """Every candidate with the highest score."""
    return tuple(int(i) for i in np.flatnonzero(scores >= scores.max() - _SAME))
