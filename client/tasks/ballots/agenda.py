"""What is voted on: agendas of a few candidates each, and where their numbers stand in one vector.

Public in every part. The vector holds, agenda after agenda, what a study releases of each ballot.
Of duels it is the upper triangle of the margins: +1 where a voter ranks the first of two candidates
higher, -1 where the second, 0 for a tie or where either is not ranked; margins need half as many
numbers as wins do, and every rule on duels needs no more. Borda scores and approvals are a number a
candidate, so a ballot moves them less and needs less noise, but one rule alone can be computed from
them. Source: the sensitivity is that of Conitzer et al. (2024) read as one clinician more or less.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

Tiers = tuple[tuple[int, ...], ...]


class Release(StrEnum):
    """What leaves of ballots, summed and noised."""

    DUELS = "duels"  # for every pair, who is ranked above whom
    BORDA = "borda"  # a centred Borda score for every candidate
    APPROVALS = "approvals"  # how many put a candidate into their first tier


@dataclass(frozen=True)
class Agenda:
    """One question and its candidates.

    Attributes:
        id: Unique in a study.
        prompt: What the candidates answer; empty for principles.
        candidates: Texts, two to twenty.
        clones: Groups of candidates declared to be near-copies, by position.
    """

    id: str
    candidates: tuple[str, ...]
    prompt: str = ""
    clones: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        if not self.id:
            raise ValueError("id is empty")
        if not 2 <= len(self.candidates) <= 20 or not all(self.candidates):
            raise ValueError(f"agenda {self.id!r}: 2 to 20 candidates, none of them empty")
        if len(set(self.candidates)) != len(self.candidates):
            raise ValueError(f"agenda {self.id!r}: a candidate stands there twice")
        named = [place for group in self.clones for place in group]
        if not all(0 <= place < len(self.candidates) for place in named):
            raise ValueError(f"agenda {self.id!r}: clones names a candidate that is not there")

    def numbers(self, release: Release) -> int:
        """How many numbers are released of a ballot: one a pair, or one a candidate."""
        count = len(self.candidates)
        return math.comb(count, 2) if release is Release.DUELS else count

    def longest(self, release: Release) -> float:
        """The square of the L2 norm of the longest ballot."""
        count = len(self.candidates)
        if release is Release.BORDA:
            return count * (count**2 - 1) / 12
        return float(self.numbers(release))


def places(agendas: Sequence[Agenda], release: Release) -> dict[str, range]:
    """Where each agenda's numbers stand in the vector.

    Raises:
        ValueError: Two agendas have one id.
    """
    found: dict[str, range] = {}
    start = 0
    for agenda in agendas:
        if agenda.id in found:
            raise ValueError(f"agenda {agenda.id!r} stands there twice")
        found[agenda.id] = range(start, start + agenda.numbers(release))
        start += agenda.numbers(release)
    return found


def longest_ballot(agendas: Sequence[Agenda], release: Release) -> float:
    """The joint L2 norm of a clinician who says as much as she can: what ``clip_norm`` should be.

    Of approvals it is that of one who approves of everybody; where k marks are the most, the root
    of k an agenda will do.
    """
    return math.sqrt(sum(agenda.longest(release) for agenda in agendas))


def contribution(candidates: int, tiers: Tiers, release: Release) -> Tensor:
    """What one ballot adds to an agenda's numbers, float64.

    Borda scores are centred: half of how many duels a candidate wins less those it loses.
    """
    if release is Release.APPROVALS:
        marks = torch.zeros(candidates, dtype=torch.float64)
        marks[list(tiers[0])] = 1.0
        return marks
    duels = ballot_margins(candidates, tiers)
    return duels if release is Release.DUELS else margin_matrix(candidates, duels).sum(1) / 2


def ballot_margins(candidates: int, tiers: Tiers) -> Tensor:
    """One ballot's duels, shape ``(candidates * (candidates - 1) / 2,)``, float64."""
    rank = torch.full((candidates,), math.nan, dtype=torch.float64)
    for place, tier in enumerate(tiers):
        rank[list(tier)] = place
    # A ranked candidate beats every one left out; two left out are not compared.
    known = rank.nan_to_num(nan=float(candidates))
    first, second = torch.triu_indices(candidates, candidates, offset=1)
    return torch.sign(known[second] - known[first])


def margin_matrix(candidates: int, upper: Tensor) -> Tensor:
    """The antisymmetric matrix of margins whose upper triangle this is."""
    matrix = torch.zeros(candidates, candidates, dtype=torch.float64)
    first, second = torch.triu_indices(candidates, candidates, offset=1)
    matrix[first, second] = upper.double()
    return matrix - matrix.T
