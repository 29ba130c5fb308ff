"""Ballots as a task: a clinician's duels are her contribution, and their noised sum leaves.

Nothing is trained: ``Statistics`` makes the sum of contributions a gradient, so that clipping,
noise, ledger and secure sums are those of every other task. Study it with the strategy ``tally``
and turn what came of it into a choice with ``wardround decide``. Source: Conitzer et al. (2024),
"Social choice should guide AI alignment".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from wardround.client.statistics import (
    Statistics,
    attach_statistics,
    contribution_losses,
    save_numbers,
)
from wardround.client.tasks.ballots.agenda import (
    Agenda,
    Release,
    contribution,
    margin_matrix,
    places,
)
from wardround.client.tasks.ballots.formats import Ballot, read_ballots, write_ballots
from wardround.client.tasks.ballots.generated import BallotShape, make_agendas, make_ballots
from wardround.client.tasks.base import (
    Batch,
    Dealt,
    Metrics,
    Record,
    TaskConfig,
    write_dealt,
)
from wardround.client.trainable import Trainable
from wardround.privacy import Unit
from wardround.privacy.errors import BadInput
from wardround.privacy.tables import from_table
from wardround.strategies.choice.pairwise import Winners, best, copeland


@dataclass(frozen=True)
class BallotConfig:
    """The ``[task]`` table.

    Attributes:
        agenda: What is voted on; made up when empty.
        release: What leaves of ballots: duels, Borda scores or approvals.
        generated: How large a made-up vote is.
    """

    agenda: tuple[Agenda, ...] = ()
    release: Release = Release.DUELS
    generated: BallotShape = field(default_factory=BallotShape)

    def __post_init__(self) -> None:
        places(self.agenda, self.release)

    @property
    def agendas(self) -> tuple[Agenda, ...]:
        """What is voted on."""
        return self.agenda or make_agendas(self.generated)


class BallotsTask:
    """Clinicians' rankings, of which only noised sums of duels leave."""

    name: ClassVar[str] = "ballots"
    summary: ClassVar[str] = "Put replies or principles to the vote; noised duels leave, no ballots"
    units: ClassVar[tuple[Unit, ...]] = (Unit.CLINICIAN, Unit.RECORD)

    def check(self, config: TaskConfig) -> None:
        """Raise ``BadInput`` naming the first field of ``[task]`` that cannot be used."""
        read_settings(config)

    def load(self, source: Path, config: TaskConfig) -> Sequence[Record]:
        """The ballots of a file; ``BadInput`` names line and field."""
        return read_ballots(source, {one.id: one for one in read_settings(config).agendas})

    def deal(
        self, source: Path | None, folder: Path, hospitals: int, seed: int, config: TaskConfig
    ) -> Dealt:
        """Write one file of ballots a hospital and one of all, to compare with.

        Of a file, whole clinicians are dealt.
        """
        settings = read_settings(config)
        if source is None:
            voters = settings.generated.clinicians_per_hospital
            shares = [make_ballots(settings.agendas, voters, n, seed) for n in range(hospitals)]
        else:
            shares = [[] for _ in range(hospitals)]
            clinicians: dict[str, int] = {}
            for record in self.load(source, config):
                place = clinicians.setdefault(record.owners[Unit.CLINICIAN], len(clinicians))
                shares[place % hospitals].append(record)
            if len(clinicians) < hospitals:
                raise BadInput(f"{source}: {len(clinicians)} clinicians, {hospitals} hospitals")
        everything = [record for share in shares for record in share]
        return write_dealt(folder, ".jsonl", shares, everything, write_ballots)

    def adapt(
        self,
        model: nn.Module,
        tokenizer: Any,
        adapter: Mapping[str, Any],
        config: TaskConfig,
        generator: torch.Generator,
    ) -> Trainable:
        """One number a duel or candidate; the base is not looked at, so ``none`` will do."""
        settings = read_settings(config)
        return attach_statistics(
            model, sum(agenda.numbers(settings.release) for agenda in settings.agendas)
        )

    def collate(
        self, units: Sequence[Sequence[Record]], tokenizer: Any, config: TaskConfig
    ) -> Batch:
        """One row a unit: what all its ballots add."""
        settings = read_settings(config)
        agendas = {agenda.id: agenda for agenda in settings.agendas}
        where = places(tuple(agendas.values()), settings.release)
        size = sum(map(len, where.values()))
        rows = torch.zeros(len(units), size, dtype=torch.float64)
        for number, records in enumerate(units):
            for record in records:
                ballot: Ballot = record.content
                count = len(agendas[ballot.agenda].candidates)
                rows[number, list(where[ballot.agenda])] += contribution(
                    count, ballot.tiers, settings.release
                )
        return Batch({"contributions": rows}, torch.arange(len(units)), len(units))

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Minus the product of statistics and contribution, one a unit."""
        return contribution_losses(model, batch.inputs["contributions"])

    def evaluate(
        self, model: nn.Module, tokenizer: Any, records: Sequence[Record], config: TaskConfig
    ) -> Metrics:
        """How far the released numbers are from those of ``records``.

        Returns:
            ``same_winners``: share of agendas with the same winners, by Copeland's rule or the
            highest score; ``margin_error``: mean absolute difference of a number, in voters per
            voter.
        """
        if not isinstance(model, Statistics):
            raise TypeError(f"expected Statistics; this is {type(model).__name__}")
        settings, units = read_settings(config), _by_clinician(records)
        agendas = settings.agendas
        exact = self.collate(units, tokenizer, config).inputs["contributions"].mean(0)
        found = model.values.double().cpu()
        same = 0
        where = places(agendas, settings.release).values()
        for agenda, place in zip(agendas, where, strict=True):
            one, other = (
                _winners(agenda, numbers[list(place)], settings.release)
                for numbers in (exact, found)
            )
            same += one == other
        return {
            "same_winners": same / len(agendas),
            "margin_error": float((exact - found).abs().mean()),
        }

    def export(
        self,
        trainable: Trainable,
        adapter: Mapping[str, Any],
        arrays: Mapping[str, Tensor],
        base: str,
        folder: Path,
        note: str,
    ) -> None:
        """Write the mean duels of all hospitals; ``wardround decide`` makes a choice of them."""
        save_numbers(arrays, folder, "Released statistics", note)


def read_settings(config: TaskConfig) -> BallotConfig:
    """The ``[task]`` table, checked."""
    return from_table(BallotConfig, config, "[task]")


def _winners(agenda: Agenda, numbers: Tensor, release: Release) -> Winners:
    """Who wins an agenda, to compare by."""
    if release is Release.DUELS:
        return copeland(margin_matrix(len(agenda.candidates), numbers).numpy() / 2)
    return best(numbers.numpy())


def _by_clinician(records: Sequence[Record]) -> list[list[Record]]:
    """Each clinician's ballots together."""
    units: dict[str, list[Record]] = {}
    for record in records:
        units.setdefault(record.owners[Unit.CLINICIAN], []).append(record)
    return list(units.values())
