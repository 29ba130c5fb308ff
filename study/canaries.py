"""Canaries of a study: made-up records of its own task, chosen in public, planted by secret coins.

Neutral to the task: units come from its own generator, under other seeds than the study's, and the
most distinct by gradient are taken. Knows nothing of rounds, scores or bounds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from wardround.client.gradients import Workload
from wardround.client.hospital import group_units
from wardround.client.tasks.base import Record
from wardround.client.workbench import Workbench
from wardround.privacy.canaries import most_distinct
from wardround.privacy.clipping import clip_factors
from wardround.privacy.errors import BadInput
from wardround.study.config import Study
from wardround.study.runner import prepare

Unit = Sequence[Record]

_MOST_DEALS = 12
_CANDIDATES = 10  # a canary is chosen among this many
_CHUNK = 64


@dataclass(frozen=True)
class Planted:
    """Who is in the audited hospital: all ``ordinary`` units, and canaries by their coins."""

    ordinary: tuple[Unit, ...]
    canaries: tuple[Unit, ...]
    coins: Tensor

    @property
    def present(self) -> list[Unit]:
        """What the hospital trains on."""
        there = zip(self.canaries, self.coins.tolist(), strict=True)
        return [*self.ordinary, *(canary for canary, coin in there if coin)]

    @property
    def possible(self) -> list[Unit]:
        """What the guesser knows: everything that could be there, canaries first."""
        return [*self.canaries, *self.ordinary]


def plant(
    study: Study, canaries: int, ordinary: int, workbench: Workbench, generator: torch.Generator
) -> Planted:
    """That many canary and ordinary units from the task's own generator, and the coins.

    Canaries come from other deals than the ordinary ones, and are those whose gradients at the
    start are the most distinct; all of that is public and decided before any coin is thrown.

    Raises:
        BadInput: The task cannot make up enough different records.
    """
    workload = prepare(study, workbench)
    seed = study.study.seed
    always = _different(_deal(study, workload, seed))[:ordinary]
    candidates: list[Unit] = []
    for number in range(1, _MOST_DEALS + 1):
        dealt = _deal(study, workload, seed + number)
        candidates = _different([*always, *candidates, *dealt])[len(always) :]
        if len(candidates) >= _CANDIDATES * canaries:
            break
    slopes = unit_gradients(workload, candidates, study.privacy.clip_norm)
    chosen = most_distinct(slopes, canaries)
    if len(chosen) < canaries:
        raise BadInput(
            f"--canaries is {canaries}; task {study.study.task!r} makes up only "
            f"{len(chosen)} records that differ enough"
        )
    coins = torch.rand(canaries, generator=generator) < 0.5
    return Planted(tuple(always), tuple(candidates[i] for i in chosen), coins)


def unit_gradients(workload: Workload, units: Sequence[Unit], clip_norm: float) -> Tensor:
    """Each unit's clipped gradient at the model's present values, ``(units, parameters)``."""
    rows = []
    with workload.engine:
        for start in range(0, len(units), _CHUNK):
            batch = workload.task.collate(
                units[start : start + _CHUNK], workload.tokenizer, workload.task_config
            )
            losses = partial(workload.task.losses, workload.trainable.model, batch)
            slopes = workload.engine.gradients(losses, batch.unit_of_row, batch.units)
            factors = clip_factors(slopes, clip_norm).cpu().float()
            flat = torch.cat([slopes[name].flatten(1).cpu() for name in sorted(slopes)], 1)
            rows.append(flat.float() * factors.unsqueeze(1))
    return torch.cat(rows)


def _deal(study: Study, workload: Workload, seed: int) -> list[Unit]:
    """The units of all hospitals of one made-up deal."""
    units: list[Unit] = []
    with tempfile.TemporaryDirectory(prefix="wardround-audit-") as scratch:
        count = study.hospitals.count
        dealt = workload.task.deal(None, Path(scratch) / "dealt", count, seed, study.task)
        for source in dealt.records:
            records = workload.task.load(source, study.task)
            units.extend(group_units(records, study.privacy.unit))
    return units


def _different(units: Sequence[Unit]) -> list[Unit]:
    """The first of each kind: units whose contents are equal cannot be told apart."""
    kinds: dict[str, Unit] = {}
    for unit in units:
        kinds.setdefault(repr([record.content for record in unit]), unit)
    return list(kinds.values())
