"""A task so small that only what surrounds it shows: made-up rows and a net of 4,290 numbers.

The net (64-64-2) and the rows are those that NVIDIA FLARE, pfl and Flower's simulation were
measured with. Registered by the benchmarks through the seam that every task uses; the base model
of the study is loaded and left alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from wardround.client.tasks.base import Batch, Dealt, Metrics, Record, TaskConfig
from wardround.client.tasks.registry import register, tasks
from wardround.client.trainable import Trainable
from wardround.privacy.errors import BadInput
from wardround.privacy.tables import from_table
from wardround.privacy.units import Unit

FEATURES = 64
HIDDEN = 64
CLASSES = 2


@dataclass(frozen=True)
class Rows:
    """A hospital's whole table: ``features`` (rows, 64), ``labels`` (rows,)."""

    features: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Place:
    """One row of a table."""

    table: Rows
    row: int


@dataclass(frozen=True)
class TinyConfig:
    """The ``[task]`` table."""

    rows: int

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError(f"rows is {self.rows}; it must be 1 or more")


def make_rows(count: int, generator: torch.Generator) -> Rows:
    """Normal features; the label says on which side of a fixed plane a row lies."""
    features = torch.randn(count, FEATURES, generator=generator)
    plane = torch.linspace(-1, 1, FEATURES)
    return Rows(features, (features @ plane > 0).long())


def make_net(generator: torch.Generator) -> nn.Sequential:
    """64-64-2 with ReLU; weights drawn from ``generator``."""
    with torch.random.fork_rng(devices=[]):
        net = nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.uniform_(-0.125, 0.125, generator=generator)
    return net


class TinyTask:
    """Classification of made-up rows by a small net."""

    name: ClassVar[str] = "bench-tiny"
    summary: ClassVar[str] = "A net of 4,290 numbers on made-up rows, for benchmarks"
    units: ClassVar[tuple[Unit, ...]] = (Unit.RECORD,)

    def check(self, config: TaskConfig) -> None:
        """Raise ``BadInput`` unless the table says how many rows a hospital has."""
        from_table(TinyConfig, config, "[task]")

    def load(self, source: Path, config: TaskConfig) -> Sequence[Record]:
        """The rows of a safetensors file, each with an owner of its own."""
        arrays = load_file(source)
        table = Rows(arrays["features"], arrays["labels"])
        return [
            Record(str(row), {Unit.RECORD: str(row)}, Place(table, row))
            for row in range(len(table.labels))
        ]

    def deal(
        self, source: Path | None, folder: Path, hospitals: int, seed: int, config: TaskConfig
    ) -> Dealt:
        """Made-up rows for everybody."""
        if source is not None:
            raise BadInput(f"{source}: the benchmark's task makes its own rows")
        folder.mkdir(parents=True, exist_ok=True)
        count = from_table(TinyConfig, config, "[task]").rows
        generator = torch.Generator().manual_seed(seed)
        paths = [folder / f"hospital-{n}.safetensors" for n in range(hospitals)]
        for path in (*paths, folder / "probes.safetensors"):
            rows = make_rows(count, generator)
            save_file({"features": rows.features, "labels": rows.labels}, path)
        return Dealt(tuple(paths), (count,) * hospitals, folder / "probes.safetensors")

    def adapt(
        self,
        model: nn.Module,
        tokenizer: Any,
        adapter: Mapping[str, Any],
        config: TaskConfig,
        generator: torch.Generator,
    ) -> Trainable:
        """The whole net, beside the base."""
        net = make_net(generator)
        return Trainable(net, dict(net.named_parameters()))

    def collate(
        self, units: Sequence[Sequence[Record]], tokenizer: Any, config: TaskConfig
    ) -> Batch:
        """The rows of one table, picked at once."""
        places: list[Place] = [record.content for unit in units for record in unit]
        table = places[0].table
        index = torch.tensor([place.row for place in places])
        unit_of_row = torch.arange(len(units))
        inputs = {"features": table.features[index], "labels": table.labels[index]}
        return Batch(inputs, unit_of_row, len(units))

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Cross-entropy of each row."""
        logits = model(batch.inputs["features"])
        return functional.cross_entropy(logits, batch.inputs["labels"], reduction="none")

    def evaluate(
        self, model: nn.Module, tokenizer: Any, records: Sequence[Record], config: TaskConfig
    ) -> Metrics:
        """Share of rows on the right side."""
        batch = self.collate([[record] for record in records], tokenizer, config)
        with torch.no_grad():
            right = model(batch.inputs["features"]).argmax(1) == batch.inputs["labels"]
        return {"accuracy": float(right.double().mean())}

    def export(
        self,
        trainable: Trainable,
        adapter: Mapping[str, Any],
        arrays: Mapping[str, Tensor],
        base: str,
        folder: Path,
        note: str,
    ) -> None:
        """The net's numbers and the note."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: array.contiguous() for name, array in arrays.items()}, folder / "net")
        (folder / "note.json").write_text(json.dumps({"note": note}), encoding="utf-8")


def register_tiny_task() -> None:
    """Make the task known in this process, once."""
    if TinyTask.name not in {listing.name for listing in tasks()}:
        register(TinyTask())
