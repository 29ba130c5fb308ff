"""The seam every task plugs into: what a task may know, and what it hands to the engine.

A task turns records into one loss per privacy unit. It never sees noise, ledger, policy or
network. Its losses must not couple units: no mean over the tokens of a batch, no in-batch
negatives, no batch norm. The contract suite in ``tests/client/tasks`` holds every registered task
to that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from wardround.client.trainable import Trainable
from wardround.privacy import Unit
from wardround.privacy.errors import BadInput

TaskConfig = Mapping[str, Any]
Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Record:
    """One row of a hospital's data: who it belongs to, and what the task knows about it.

    Attributes:
        id: Unique inside one data set.
        owners: For each unit of privacy the data can be grouped by, this record's owner.
        content: The task's own frozen dataclass.
    """

    id: str
    owners: Mapping[Unit, str]
    content: Any


@dataclass(frozen=True)
class Batch:
    """Rows ready for the model, and which privacy unit each row belongs to.

    Attributes:
        inputs: Tensors whose first axis is the row; whatever the task's ``losses`` needs.
        unit_of_row: Shape ``(rows,)``, int64, values in ``[0, units)``.
        units: How many privacy units the rows belong to.
    """

    inputs: Mapping[str, Tensor]
    unit_of_row: Tensor
    units: int


@dataclass(frozen=True)
class Dealt:
    """A public or made-up data set, dealt out to hospitals on disk.

    Attributes:
        records: One file a hospital, in an order that does not change.
        units: How many records each file holds; public, because the whole data set is.
        probes: Public records to evaluate on.
        notes: What was held out and why, a sentence each.
    """

    records: tuple[Path, ...]
    units: tuple[int, ...]
    probes: Path
    notes: tuple[str, ...] = ()


def write_dealt(
    folder: Path,
    suffix: str,
    shares: Sequence[Sequence[Record]],
    probes: Sequence[Record],
    write: Callable[[Sequence[Record], Path], None],
) -> Dealt:
    """Write one file a hospital and one of probes into ``folder``, in a task's own format."""
    folder.mkdir(parents=True, exist_ok=True)
    files = tuple(folder / f"hospital-{number}{suffix}" for number in range(len(shares)))
    for path, records in zip(files, shares, strict=True):
        write(records, path)
    write(probes, folder / f"probes{suffix}")
    return Dealt(files, tuple(map(len, shares)), folder / f"probes{suffix}")


@runtime_checkable
class WritesRecords(Protocol):
    """A task that may replace what records say before a step learns from them, as on-policy does.

    Privacy: what a record is replaced by depends on that record, the model and coins alone.
    """

    def before_step(
        self,
        model: nn.Module,
        tokenizer: Any,
        units: Sequence[Sequence[Record]],
        config: TaskConfig,
        step: int,
        notebook: MutableMapping[str, Any],
        generator: torch.Generator,
    ) -> Sequence[Sequence[Record]]:
        """The units of this step, some of their records replaced; as many records as before.

        ``notebook`` is the task's to write in; it lives at the hospital for one round.
        ``generator`` is private.
        """


class Task(Protocol):
    """Everything a task may know. A task has no state: one object serves all hospitals.

    A task may also say ``records_add_up = True``: a unit's loss is the sum of its records' losses,
    so a unit with very many records can go through the model in pieces.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    units: ClassVar[tuple[Unit, ...]]  # units of privacy it supports; the first is the default

    def check(self, config: TaskConfig) -> None:
        """Raise ``BadInput`` naming the first field of ``[task]`` that cannot be used."""

    def load(self, source: Path, config: TaskConfig) -> Sequence[Record]:
        """Read the field's own file formats; ``BadInput`` names file, line and field."""

    def deal(
        self, source: Path | None, folder: Path, hospitals: int, seed: int, config: TaskConfig
    ) -> Dealt:
        """Write one file of records a hospital and one of public probes, all readable by ``load``.

        From the public file ``source``, or from the task's own generator when it is None; the same
        arguments give the same files. For trying a study on one machine: a hospital's own records
        are never dealt.
        """

    def adapt(
        self,
        model: nn.Module,
        tokenizer: Any,
        adapter: Mapping[str, Any],
        config: TaskConfig,
        generator: torch.Generator,
    ) -> Trainable:
        """Choose what trains: LoRA factors, a soft prompt, small nets. Everything else is frozen.

        ``tokenizer`` spells what starts as words, such as a prompt. ``generator`` is public: it
        draws the initial values.
        """

    def collate(
        self, units: Sequence[Sequence[Record]], tokenizer: Any, config: TaskConfig
    ) -> Batch:
        """Rows for these units' records, one inner sequence a unit."""

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """One loss a unit, shape ``(units,)``, each a function of that unit's rows alone."""

    def evaluate(
        self, model: nn.Module, tokenizer: Any, records: Sequence[Record], config: TaskConfig
    ) -> Metrics:
        """Scores on records that may be looked at: public probes, or a hospital's own at home."""

    def export(
        self,
        trainable: Trainable,
        adapter: Mapping[str, Any],
        arrays: Mapping[str, Tensor],
        base: str,
        folder: Path,
        note: str,
    ) -> None:
        """Write what the study learnt so that others can load it (PEFT's format where it is exact).

        ``note`` is what a reader of the model card must know first, such as the privacy cost.
        """


@runtime_checkable
class Predicts(Protocol):
    """What a task may offer besides: data for evaluation alone, and predictions as a file."""

    def read_probes(self, source: Path, config: TaskConfig) -> Sequence[Record]:
        """Records that are looked at and never trained on; ``BadInput`` as ``Task.load``."""

    def write_predictions(
        self,
        model: nn.Module,
        tokenizer: Any,
        records: Sequence[Record],
        config: TaskConfig,
        path: Path,
    ) -> Metrics:
        """Evaluate, and write what was predicted in the field's own format.

        Privacy: exact and about single records; for the house that holds them.
        """


@runtime_checkable
class HasLabels(Protocol):
    """A task whose records say which of two things is so, and that can do with wrong answers."""

    def labels(self, records: Sequence[Record]) -> Sequence[int]:
        """0 or 1 for each record; ``BadInput`` where one has no such label."""

    def relabel(self, records: Sequence[Record], labels: Sequence[int]) -> Sequence[Record]:
        """The records as if these were their labels, in the same order.

        Privacy: the result depends on nothing that depends on the records' own labels, not even on
        an order in which they were written down.
        """

    def expecting_flips(self, config: TaskConfig, probability: float) -> TaskConfig:
        """The settings for labels that are wrong this often; ``BadInput`` if they cannot be so."""


@runtime_checkable
class Precomputes(Protocol):
    """A task that can write beside its records what a frozen model says of them, once for all."""

    def precompute(
        self, model: nn.Module, tokenizer: Any, source: Path, config: TaskConfig, path: Path
    ) -> int:
        """Read records, write a file that ``Task.load`` reads, and say of how many.

        Privacy: exact and about single records; for the house that holds them.
        """


@runtime_checkable
class NarrowsUnits(Protocol):
    """A task some of whose settings rule out some of its units of privacy."""

    def units_under(self, config: TaskConfig) -> tuple[Unit, ...]:
        """The units it supports with these settings; the first is the default."""


def grouping_unit(task: Task, config: TaskConfig, unit: Unit) -> Unit:
    """What records are grouped by where ``unit`` is protected; those of a site as the task prefers.

    A label belongs to its record.

    Raises:
        BadInput: The task does not protect this unit with these settings; says which it does.
    """
    units = task.units_under(config) if isinstance(task, NarrowsUnits) else task.units
    if unit is Unit.SITE:
        return units[0]
    if unit is Unit.LABEL and isinstance(task, HasLabels):
        return Unit.RECORD
    if unit not in units:
        raise BadInput(
            f"[privacy] unit is {unit.value!r}; task {task.name!r} with these settings protects: "
            + ", ".join(known.value for known in units)
        )
    return unit
