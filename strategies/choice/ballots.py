"""Ballots over one agenda: rankings with ties and gaps, held as one integer array.

Knows nothing of clinicians' names or of hospitals. A ranking may tie candidates and may leave some
out; one left out counts as below every ranked one and as not compared with the others left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Ranking = Sequence[Sequence[int]]  # tiers, best first
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Profile:
    """Rankings of ``candidates`` candidates, each cast by some number of voters.

    Attributes:
        ranks: Shape ``(ballots, candidates)``, int64: 0 is best; equal ranks are ties.
        counts: Shape ``(ballots,)``, float64: how many voters cast each ballot.
        ranked: Shape ``(ballots, candidates)``, bool: which candidates the ballot names.
    """

    ranks: NDArray[np.int64]
    counts: Floats
    ranked: NDArray[np.bool_]

    @classmethod
    def of(cls, candidates: int, ballots: Iterable[tuple[float, Ranking]]) -> Self:
        """A profile from (voters, tiers) pairs.

        Raises:
            ValueError: A candidate is unknown or named twice, or a count is not positive.
        """
        if candidates < 1:
            raise ValueError(f"candidates is {candidates}; it must be 1 or more")
        ranks, counts, ranked = [], [], []
        for number, (count, tiers) in enumerate(ballots, 1):
            if not 0 < count < float("inf"):
                raise ValueError(f"ballot {number}: {count} voters; it must be greater than 0")
            row = np.full(candidates, candidates, dtype=np.int64)
            for rank, tier in enumerate(tiers):
                for candidate in tier:
                    if not 0 <= candidate < candidates:
                        raise ValueError(f"ballot {number}: no candidate {candidate}")
                    if row[candidate] != candidates:
                        raise ValueError(f"ballot {number}: candidate {candidate} is ranked twice")
                    row[candidate] = rank
            ranks.append(row)
            counts.append(count)
            ranked.append(row != candidates)
        shape = (len(ranks), candidates)
        return cls(
            np.array(ranks, dtype=np.int64).reshape(shape),
            np.array(counts, dtype=np.float64),
            np.array(ranked, dtype=np.bool_).reshape(shape),
        )

    @property
    def candidates(self) -> int:
        """How many candidates there are."""
        return int(self.ranks.shape[1])

    @property
    def voters(self) -> float:
        """How many voters there are."""
        return float(self.counts.sum())

    def wins(self) -> Floats:
        """Entry (i, j): how many voters rank i above j; shape ``(candidates, candidates)``."""
        better = self.ranks[:, :, None] < self.ranks[:, None, :]
        wins: Floats = np.einsum("v,vij->ij", self.counts, better)
        return wins

    def without(self, removed: Iterable[int]) -> Profile:
        """The same ballots with some candidates struck out; the others keep their order."""
        gone = set(removed)
        kept = [i for i in range(self.candidates) if i not in gone]
        return Profile(self.ranks[:, kept], self.counts, self.ranked[:, kept])

    def with_counts(self, counts: Floats) -> Profile:
        """The same ballots cast by other numbers of voters."""
        return Profile(self.ranks, counts, self.ranked)

    def top(self, remaining: Sequence[int]) -> Floats:
        """First places among ``remaining``, a tie shared evenly; shape ``(len(remaining),)``.

        A ballot that names none of them counts for nobody.
        """
        ranks = self.ranks[:, list(remaining)]
        named = self.ranked[:, list(remaining)]
        best = np.where(named, ranks, self.candidates).min(axis=1, keepdims=True)
        first = named & (ranks == best)
        shares = first / np.maximum(first.sum(axis=1, keepdims=True), 1)
        places: Floats = self.counts @ shares
        return places


def combine(profiles: Sequence[Profile]) -> Profile:
    """All ballots of several sites over the same agenda.

    Raises:
        ValueError: There is none, or they differ in the number of candidates.
    """
    if len({profile.candidates for profile in profiles}) != 1:
        raise ValueError("profiles to combine must share one number of candidates")
    return Profile(
        np.concatenate([profile.ranks for profile in profiles]),
        np.concatenate([profile.counts for profile in profiles]),
        np.concatenate([profile.ranked for profile in profiles]),
    )
