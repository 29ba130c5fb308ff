"""Rules for approvals: choose some of the candidates so that groups of voters are represented.

For a set of principles rather than one answer. Sources: Thiele (1895) for proportional approval
voting and its sequential form; Phragmén (1894), sequential; Peters and Skowron (2020) for the
method of equal shares, without a completion; Aziz et al. (2017) for justified representation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np

from wardround.strategies.choice.ballots import Floats
from wardround.strategies.choice.pairwise import Winners, best

_MOST_COMMITTEES = 200_000


def approval_scores(approvals: Floats, counts: Floats) -> Floats:
    """How many voters approve of each candidate, shape ``(candidates,)``.

    Args:
        approvals: Shape ``(ballots, candidates)``, 1 for approved and 0 for not.
        counts: Shape ``(ballots,)``: how many voters cast each ballot.
    """
    scores: Floats = counts @ approvals
    return scores


def most_approved(approvals: Floats, counts: Floats, seats: int) -> Winners:
    """The ``seats`` candidates with most approvals; ties go to the lower number."""
    _check(approvals, seats)
    scores = approval_scores(approvals, counts)
    return tuple(sorted(np.argsort(-scores, kind="stable")[:seats].tolist()))


def thiele_score(approvals: Floats, counts: Floats, committee: Sequence[int]) -> float:
    """Sum over voters of 1 + 1/2 + ... + 1/k, k being how many of the committee they approve."""
    seen = approvals[:, list(committee)].sum(axis=1).astype(np.int64)
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, len(committee) + 1))])
    return float(counts @ harmonic[seen])


def proportional_approval(approvals: Floats, counts: Floats, seats: int) -> Winners:
    """The committee with the highest Thiele score, all being tried; ties go to the first.

    Raises:
        ValueError: There are too many committees to try; use ``sequential_proportional_approval``.
    """
    _check(approvals, seats)
    committees = math.comb(approvals.shape[1], seats)
    if committees > _MOST_COMMITTEES:
        raise ValueError(f"{committees} committees are too many to try; take the sequential rule")
    every = combinations(range(approvals.shape[1]), seats)
    return max(every, key=lambda committee: thiele_score(approvals, counts, committee))


def sequential_proportional_approval(approvals: Floats, counts: Floats, seats: int) -> Winners:
    """Add, one at a time, the candidate that raises the Thiele score most."""
    _check(approvals, seats)
    return _greedy(
        approvals.shape[1],
        seats,
        lambda chosen, candidate: thiele_score(approvals, counts, [*chosen, candidate]),
    )


def sequential_phragmen(approvals: Floats, counts: Floats, seats: int) -> Winners:
    """Add the candidate whose supporters, sharing its cost of 1, bear the least load."""
    _check(approvals, seats)
    loads, chosen = np.zeros(len(counts)), list[int]()
    while len(chosen) < seats:
        support = counts @ approvals
        with np.errstate(divide="ignore"):
            bearing = (1 + (counts * loads) @ approvals) / support
        bearing[chosen] = math.inf
        if not np.isfinite(bearing).any():
            break  # nobody approves of anyone who is left
        candidate = best(-bearing)[0]
        loads = np.where(approvals[:, candidate] > 0, bearing[candidate], loads)
        chosen.append(candidate)
    return tuple(sorted(chosen))


def equal_shares(approvals: Floats, counts: Floats, seats: int) -> Winners:
    """Every voter holds seats/voters; supporters buy candidates at 1, the least per head first.

    It may buy fewer than ``seats``; the others are then left empty, as the rule's authors define
    it before any completion.
    """
    _check(approvals, seats)
    purse = np.full(len(counts), seats / counts.sum())
    chosen: list[int] = []
    while len(chosen) < seats:
        prices = np.array(
            [
                math.inf if i in chosen else _price(approvals[:, i] > 0, purse, counts)
                for i in range(approvals.shape[1])
            ]
        )
        if not np.isfinite(prices).any():
            break
        candidate = best(-prices)[0]
        paid = np.minimum(purse, prices[candidate])
        purse = np.where(approvals[:, candidate] > 0, purse - paid, purse)
        chosen.append(candidate)
    return tuple(sorted(chosen))


def _price(
    supporters: np.ndarray[tuple[int], np.dtype[np.bool_]], purse: Floats, counts: Floats
) -> float:
    """The most one supporter pays when all pay alike as far as they can; infinite if too little."""
    money, people = purse[supporters], counts[supporters]
    if money @ people < 1 - 1e-12:
        return math.inf
    missing, heads = 1.0, float(people.sum())
    for held, count in sorted(zip(money.tolist(), people.tolist(), strict=True)):
        if held * heads >= missing - 1e-15:
            return missing / heads
        missing -= held * count
        heads -= count
    return float(money.max())


def unrepresented(
    approvals: Floats, counts: Floats, seats: int, committee: Sequence[int]
) -> Winners:
    """Candidates backed by at least voters/seats people none of whom has anyone in ``committee``.

    Empty when the committee gives justified representation.
    """
    _check(approvals, seats)
    represented = approvals[:, list(committee)].any(axis=1)
    backing = (counts * ~represented) @ approvals
    quota = counts.sum() / seats
    return tuple(int(i) for i in np.flatnonzero(backing >= quota - 1e-9))


def _greedy(candidates: int, seats: int, score: Callable[[Sequence[int], int], float]) -> Winners:
    """Add the best scoring candidate until the seats are full; ties go to the lower number."""
    chosen: list[int] = []
    for _ in range(seats):
        left = [i for i in range(candidates) if i not in chosen]
        chosen.append(max(left, key=lambda i: score(chosen, i)))
    return tuple(sorted(chosen))


def _check(approvals: Floats, seats: int) -> None:
    """Raise ``ValueError`` unless there is a committee of this size."""
    if approvals.ndim != 2 or not np.isin(approvals, (0, 1)).all():
        raise ValueError("approvals must be a table of 0 and 1, a row a ballot")
    if not 1 <= seats <= approvals.shape[1]:
        raise ValueError(f"seats is {seats}; it must be in 1..{approvals.shape[1]}")
