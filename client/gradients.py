"""Gradients of one step's sample, a few units at a time: each unit's own, clipped, or their mean.

What one unit contributed never leaves this module by itself. Knows nothing of noise, optimizers,
or how a sample was drawn.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor

from wardround.client.engine.accumulate import UnitAccumulator
from wardround.client.engine.base import Engine, check_losses
from wardround.client.sampling import Sample, Units
from wardround.client.tasks.base import Batch, Task, TaskConfig, WritesRecords
from wardround.client.trainable import Trainable
from wardround.privacy.clipping import Clipped
from wardround.privacy.loss_report import LOSS
from wardround.privacy.session import Session
from wardround.privacy.stream import SecureStream


@dataclass(frozen=True)
class Workload:
    """What a round trains on and with; several hospitals may share all of it but the records.

    Attributes:
        task: Turns records into one loss a unit.
        task_config: The task's settings.
        trainable: The model and what moves in it.
        engine: Forms one gradient a unit.
        tokenizer: Passed through to the task.
    """

    task: Task
    task_config: TaskConfig
    trainable: Trainable
    engine: Engine
    tokenizer: Any

    def before_step(
        self, sample: Sample, step: int, notebook: MutableMapping[str, Any], stream: SecureStream
    ) -> Sample:
        """The sample as the task wants to learn from it; most tasks change nothing."""
        if not _writes_records(type(self.task)):
            return sample
        task = cast("WritesRecords", self.task)
        generator = torch.Generator().manual_seed(int(stream.below(2**62, 1)[0]))
        units = task.before_step(
            self.trainable.model,
            self.tokenizer,
            sample.records,
            self.task_config,
            step,
            notebook,
            generator,
        )
        return replace(sample, records=tuple(units))

    @contextmanager
    def only(self, names: Collection[str]) -> Iterator[Workload]:
        """Inside, only the arrays called ``names`` train; the workload that trains them.

        Raises:
            BadMessage: A name is not that of a trainable array, or there is none.
        """
        if set(names) == self.trainable.parameters.keys():
            yield self
            return
        with self.trainable.only(names) as part:
            yield replace(self, trainable=part, engine=type(self.engine)(part))


@cache
def _writes_records(kind: type) -> bool:
    """Whether tasks of this class do; asked in every step, and slow to find out."""
    return issubclass(kind, WritesRecords)


def clipped_sum(workload: Workload, sample: Sample, session: Session, micro_batch: int) -> Clipped:
    """The sum of the chosen units' gradients, each clipped; the engine must be attached.

    Args:
        workload: Task, model and engine.
        sample: The units of this step.
        session: Says how long a gradient may be.
        micro_batch: Units whose gradients are in memory at once; changes nothing but that. A unit
            of more records than this goes through in pieces, where the task's records add up.

    Privacy: one unit more or less moves it by the session's clip norm at most. Pieces of a unit are
    added up before it is clipped, once.
    """
    total, losses = session.clipped_sum(workload.trainable.shapes), session.loss_sum()
    for places, pieces in _micro_batches(workload, sample.records, micro_batch):
        members, seen = [sample.members[place] for place in places], list[Tensor]()
        total.add(_per_unit(workload, pieces, seen), members)
        if losses is not None:
            losses.add({LOSS: torch.stack(seen).sum(0)}, members)
    return total.close() if losses is None else total.close().beside(losses.close())


def mean_gradient(workload: Workload, sample: Sample, micro_batch: int) -> dict[str, Tensor]:
    """The ordinary mean gradient of the sample, float64 by wire name; zeros for an empty one.

    Privacy: nothing is clipped, so this and whatever follows from it stays at home until a whole
    update or a whole batch's gradient is clipped.
    """
    parameters = workload.trainable.parameters
    total: dict[str, Tensor] = {}
    for _, pieces in _micro_batches(workload, sample.records, micro_batch):
        for piece in pieces:
            batch = _collate(workload, piece)
            losses = workload.task.losses(workload.trainable.model, batch)
            summed = check_losses(losses, batch.units).sum()
            found = torch.autograd.grad(summed, list(parameters.values()), allow_unused=True)
            for name, gradient in zip(parameters, found, strict=True):
                if gradient is not None:
                    mean = gradient.double().div_(len(sample.records))
                    total[name] = total[name].add_(mean) if name in total else mean
    return {
        name: total[name] if name in total else torch.zeros_like(p, dtype=torch.float64)
        for name, p in parameters.items()
    }


def _per_unit(workload: Workload, pieces: Sequence[Units], seen: list[Tensor]) -> dict[str, Tensor]:
    """One gradient a unit: of several units together, or of one unit added up from its pieces.

    ``seen`` is given the losses of each piece.
    """
    if len(pieces) == 1:
        return _gradients(workload, pieces[0], seen)
    whole = UnitAccumulator(1)
    for piece in pieces:
        whole.add(_gradients(workload, piece, seen), [0])
    return whole.close()


def _gradients(workload: Workload, units: Units, seen: list[Tensor]) -> dict[str, Tensor]:
    """One gradient a unit out of one pass; its losses go to ``seen``, once."""
    batch, passes = _collate(workload, units), list[Tensor]()

    def losses() -> Tensor:
        found = workload.task.losses(workload.trainable.model, batch)
        passes.append(found.detach().double())
        return found

    gradients = workload.engine.gradients(losses, batch.unit_of_row, batch.units)
    seen.append(passes[-1] if passes else torch.zeros(0, dtype=torch.float64))
    return gradients


def _micro_batches(
    workload: Workload, records: Units, micro_batch: int
) -> Iterator[tuple[list[int], list[Units]]]:
    """Places in the sample and what goes through the model for them, pass by pass.

    At most ``micro_batch`` units in one pass; or one large unit in several.
    """
    adds_up = getattr(workload.task, "records_add_up", False)
    large = [n for n, unit in enumerate(records) if adds_up and len(unit) > micro_batch]
    apart = set(large)
    small = [n for n in range(len(records)) if n not in apart]
    for start in range(0, len(small), micro_batch):
        places = small[start : start + micro_batch]
        yield places, [[records[place] for place in places]]
    for place in large:
        unit = records[place]
        cuts = range(0, len(unit), micro_batch)
        yield [place], [[unit[cut : cut + micro_batch]] for cut in cuts]


def _collate(workload: Workload, units: Units) -> Batch:
    """The task's rows for these units."""
    return workload.task.collate(units, workload.tokenizer, workload.task_config)
