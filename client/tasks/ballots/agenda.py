"""What is voted on: agendas of a few candidates each, and where their duels stand in one vector.

Public in every part. The vector holds, agenda after agenda, the upper triangle of the margins: +1
where a voter ranks the first of two candidates higher, -1 where the second, 0 for a tie or where
either is not ranked. Margins need half the numbers that wins do, and every rule on duels needs no
more. Source: the sensitivity is that of Conitzer et al. (2024) read as one clinician more or less.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Tiers = tuple[tuple[int, ...], ...]


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

    @property
    def duels(self) -> int:
        """Pairs of candidates."""
        return math.comb(len(self.candidates), 2)


def places(agendas: Sequence[Agenda]) -> dict[str, range]:
    """Where each agenda's duels stand in the vector.

    Raises:
        ValueError: Two agendas have one id.
    """
    found: dict[str, range] = {}
    start = 0
    for agenda in agendas:
        if agenda.id in found:
            raise ValueError(f"agenda {agenda.id!r} stands there twice")
        found[agenda.id] = range(start, start + agenda.duels)
        start += agenda.duels
    return found


def longest_ballot(agendas: Sequence[Agenda]) -> float:
    """The joint L2 norm of a clinician who ranks everything: what ``clip_norm`` should be."""
    return math.sqrt(sum(agenda.duels for agenda in agendas))


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
