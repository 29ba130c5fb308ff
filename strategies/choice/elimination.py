"""Rules that need whole ballots: plurality, instant runoff and the single transferable vote.

They cannot be worked out from counts of duels, so they are for a coordinator who may see ballots:
without noise, or trusted. Sources: for STV the Scottish rules of 2007 (Droop quota, surpluses moved
at a fraction of their value, the quota fixed at the start).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from wardround.strategies.choice.ballots import Floats, Profile
from wardround.strategies.choice.pairwise import Winners, best

_MOST_PARALLEL = 12  # candidates: every order of breaking ties is followed, 2 to this many sets
_TIE = 1e-9


def plurality(profile: Profile) -> Winners:
    """The candidates with most first places."""
    return best(profile.top(range(profile.candidates)))


def instant_runoff(profile: Profile, order: Sequence[int] | None = None) -> Winners:
    """Whoever is left when the candidate with fewest first places goes, again and again.

    Args:
        profile: The ballots.
        order: Candidates in the order that breaks ties, the last one going first. By default every
            way of breaking ties is followed and all that can win are returned.

    Raises:
        ValueError: There are too many candidates to follow every way.
    """
    if order is None and profile.candidates > _MOST_PARALLEL:
        raise ValueError(
            f"{profile.candidates} candidates; without an order for ties at most {_MOST_PARALLEL}"
        )
    place = None if order is None else np.argsort(np.array(order))
    front = {tuple(range(profile.candidates))}
    for _ in range(profile.candidates - 1):
        after = set()
        for remaining in front:
            for leaver in _leavers(profile, remaining, place):
                after.add(tuple(i for i in remaining if i != leaver))
        front = after
    return tuple(sorted(remaining[0] for remaining in front))


def _leavers(
    profile: Profile,
    remaining: tuple[int, ...],
    place: np.ndarray[tuple[int], np.dtype[np.intp]] | None,
) -> list[int]:
    """Who may go next: all with fewest first places, or the last of them in the order."""
    places = profile.top(remaining)
    lowest = [remaining[i] for i in np.flatnonzero(places <= places.min() + _TIE)]
    return lowest if place is None else [max(lowest, key=lambda i: int(place[i]))]


def single_transferable_vote(profile: Profile, seats: int, order: Sequence[int]) -> Winners:
    """The elected, proportional to how many voters rank them on top.

    Args:
        profile: The ballots; a tie at the top of a ballot is shared evenly.
        seats: How many are elected.
        order: Candidates in the order that breaks ties, published before ballots are cast.

    Raises:
        ValueError: ``seats`` is not between 1 and the number of candidates.
    """
    if not 1 <= seats <= profile.candidates:
        raise ValueError(f"seats is {seats}; it must be in 1..{profile.candidates}")
    place = {candidate: position for position, candidate in enumerate(order)}
    quota = math.floor(profile.voters / (seats + 1)) + 1
    values = profile.counts.copy()
    hopeful, elected = list(range(profile.candidates)), list[int]()
    while hopeful and len(elected) < seats:
        if len(hopeful) + len(elected) <= seats:
            elected += hopeful
            break
        votes = dict(zip(hopeful, profile.with_counts(values).top(hopeful), strict=True))
        leader = max(hopeful, key=lambda i: (votes[i], -place[i]))
        if votes[leader] >= quota - _TIE:
            share = (votes[leader] - quota) / votes[leader]
            values = values * (1 - _supports(profile, hopeful, leader) * (1 - share))
            elected.append(leader)
            hopeful.remove(leader)
        else:
            hopeful.remove(min(hopeful, key=lambda i: (votes[i], -place[i])))
    return tuple(sorted(elected))


def _supports(profile: Profile, remaining: Sequence[int], candidate: int) -> Floats:
    """The part of each ballot that counts for ``candidate``, shape ``(ballots,)``."""
    single = profile.with_counts(np.ones(1))
    shares = [
        Profile(single.ranks[[i]], np.ones(1), single.ranked[[i]]).top(remaining)
        for i in range(len(profile.ranks))
    ]
    column = list(remaining).index(candidate)
    return np.array([share[column] for share in shares])
