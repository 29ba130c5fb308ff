"""Causal moments as a task: a row's products up to third order are its contribution.

Nothing is trained: ``Statistics`` makes the sum of contributions a gradient, so clipping, noise,
ledger and secure sums are those of every other task. A contribution is at most the root of three
long, which is what ``clip_norm`` should be. Study it with the strategy ``tally`` and turn what came
of it into a graph, or into the verdict that the noise is too large for one, with ``wardround
causes``. Source: Massidda, Magliacane and Bacciu (2024), arXiv 2406.00394, for the abstraction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from wardround.client.statistics import (
    Statistics,
    attach_statistics,
    contribution_losses,
    save_numbers,
)
from wardround.client.tasks.abs_lingam.config import CausalConfig, causal_config
from wardround.client.tasks.abs_lingam.formats import read_rows, write_rows
from wardround.client.tasks.base import (
    Batch,
    Dealt,
    Metrics,
    Record,
    TaskConfig,
    write_dealt,
)
from wardround.client.tasks.draws import Draws
from wardround.client.trainable import Trainable
from wardround.privacy import Unit
from wardround.privacy.errors import BadInput
from wardround.strategies.causal.moments import contributions, judge, monomials
from wardround.strategies.causal.scores import order_agreement
from wardround.strategies.causal.systems import random_dag, total_effects


class AbsLingamTask:
    """Rows of numbers, of which only noised sums of products leave."""

    name: ClassVar[str] = "abs_lingam"
    summary: ClassVar[str] = "Learn who causes whom; noised moments leave, no rows"
    units: ClassVar[tuple[Unit, ...]] = (Unit.RECORD, Unit.PATIENT)

    def check(self, config: TaskConfig) -> None:
        """Raise ``BadInput`` naming the first field of ``[task]`` that cannot be used."""
        causal_config(config)

    def load(self, source: Path, config: TaskConfig) -> Sequence[Record]:
        """The rows of a CSV file; ``BadInput`` names line and column."""
        return read_rows(source, _columns(causal_config(config)))

    def deal(
        self, source: Path | None, folder: Path, hospitals: int, seed: int, config: TaskConfig
    ) -> Dealt:
        """Write one CSV file a hospital and one of all rows, to compare with.

        Privacy: ``source`` must be public.
        """
        settings = causal_config(config)
        if source is None:
            shares = _generated(settings, hospitals, seed)
        else:
            records = Draws(seed, "abs_lingam/deal").shuffled(self.load(source, config))
            if len(records) < hospitals:
                raise BadInput(f"{source}: {len(records)} rows, {hospitals} hospitals")
            shares = [records[number::hospitals] for number in range(hospitals)]
        everything = [record for share in shares for record in share]
        write = partial(write_rows, names=_columns(settings))
        return write_dealt(folder, ".csv", shares, everything, write)

    def adapt(
        self,
        model: nn.Module,
        tokenizer: Any,
        adapter: Mapping[str, Any],
        config: TaskConfig,
        generator: torch.Generator,
    ) -> Trainable:
        """One number a product; the base is not looked at, so ``none`` will do."""
        products, _ = monomials(len(causal_config(config).names))
        return attach_statistics(model, len(products))

    def collate(
        self, units: Sequence[Sequence[Record]], tokenizer: Any, config: TaskConfig
    ) -> Batch:
        """One row a unit: the mean of its rows' contributions, so many rows weigh no more."""
        settings = causal_config(config)
        products, _ = monomials(len(settings.names))
        found = torch.zeros(len(units), len(products), dtype=torch.float64)
        for number, records in enumerate(units):
            if records:
                rows = np.array([record.content for record in records])
                mean = contributions(settings.scaled(rows)).mean(axis=0)
                found[number] = torch.from_numpy(mean)
        return Batch({"contributions": found}, torch.arange(len(units)), len(units))

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Minus the product of statistics and contribution, one a unit."""
        return contribution_losses(model, batch.inputs["contributions"])

    def evaluate(
        self, model: nn.Module, tokenizer: Any, records: Sequence[Record], config: TaskConfig
    ) -> Metrics:
        """How far the released moments, and the order they give, are from those of ``records``.

        Returns:
            ``directions``: share of the edges found without noise whose cause still comes first;
            ``moment_error``: mean absolute difference of a weighted moment.
        """
        if not isinstance(model, Statistics):
            raise TypeError(f"expected Statistics; this is {type(model).__name__}")
        settings = causal_config(config)
        rows = np.array([record.content for record in records])
        exact = contributions(settings.scaled(rows)).mean(axis=0)
        found = model.values.double().cpu().numpy()
        size, generator = len(settings.names), torch.Generator()
        count = float(len(records))
        wanted = judge([exact * count], [count], size, 0.0, generator)
        # Without anything released yet all moments are 0, and any order is as good as another.
        got = judge([found * count], [count], size, 0.0, generator, noised=True)
        return {
            "directions": order_agreement(list(got.order), wanted.adjacency),
            "moment_error": float(np.abs(exact - found).mean()),
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
        """Write the mean moments of all hospitals; ``wardround causes`` makes a graph of them."""
        save_numbers(arrays, folder, "Released moments", note)


def _columns(settings: CausalConfig) -> tuple[str, ...]:
    """The columns of the files."""
    return tuple(variable.name for variable in settings.variable)


def _generated(settings: CausalConfig, hospitals: int, seed: int) -> list[list[Record]]:
    """Rows of one random linear system with skewed noise, in the variables' own units."""
    columns, shape = settings.variable, settings.generated
    generator = torch.Generator().manual_seed(seed)
    possible = len(columns) * (len(columns) - 1) // 2
    weights = random_dag(len(columns), min(shape.edges, possible), generator)
    effects = total_effects(weights)
    effects = effects / np.sqrt((effects**2).sum(axis=0))
    order = torch.randperm(len(columns), generator=generator).numpy()
    shares = []
    for hospital in range(hospitals):
        size = (shape.records_per_hospital, len(columns))
        uniform = torch.rand(size, generator=generator, dtype=torch.float64).numpy()
        values = ((-np.log1p(-uniform) - 1) @ effects)[:, order]
        centre = np.array([variable.centre for variable in columns])
        scale = np.array([variable.scale for variable in columns])
        rows = (centre + scale * values).round(6).tolist()
        names = [f"h{hospital}-{number:06d}" for number in range(len(rows))]
        shares.append(
            [Record(n, {Unit.RECORD: n}, tuple(row)) for n, row in zip(names, rows, strict=True)]
        )
    return shares
