"""Gradients of one step's sample, a few units at a time: each unit's own, clipped, or their mean.

What one unit contributed never leaves this module by itself. Knows nothing of noise, optimizers,
or how a sample was drawn.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from wardround.client.engine.base import Engine, check_losses
from wardround.client.sampling import Sample
from wardround.client.tasks.base import Batch, Record, Task, TaskConfig, WritesRecords
from wardround.client.trainable import Trainable
from wardround.privacy.clipping import Clipped
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
        if not isinstance(self.task, WritesRecords):
            return sample
        generator = torch.Generator().manual_seed(int(stream.below(2**62, 1)[0]))
        units = self.task.before_step(
            self.trainable.model,
            self.tokenizer,
            sample.records,
            self.task_config,
            step,
            notebook,
            generator,
        )
        return replace(sample, records=tuple(map(tuple, units)))

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


def clipped_sum(workload: Workload, sample: Sample, session: Session, micro_batch: int) -> Clipped:
    """The sum of the chosen units' gradients, each clipped; the engine must be attached.

    Args:
        workload: Task, model and engine.
        sample: The units of this step.
        session: Says how long a gradient may be.
        micro_batch: Units whose gradients are in memory at once; changes nothing but that.

    Privacy: one unit more or less moves it by the session's clip norm at most.
    """
    total = session.clipped_sum(workload.trainable.shapes)
    for batch, places in _batches(workload, sample.records, micro_batch):
        losses = partial(workload.task.losses, workload.trainable.model, batch)
        gradients = workload.engine.gradients(losses, batch.unit_of_row, batch.units)
        total.add(gradients, [sample.members[place] for place in places])
    return total.close()


def mean_gradient(workload: Workload, sample: Sample, micro_batch: int) -> dict[str, Tensor]:
    """The ordinary mean gradient of the sample, float64 by wire name; zeros for an empty one.

    Privacy: nothing is clipped, so this and whatever follows from it stays at home until a whole
    update or a whole batch's gradient is clipped.
    """
    parameters = workload.trainable.parameters
    total = {
        name: torch.zeros(p.shape, dtype=torch.float64, device=p.device)
        for name, p in parameters.items()
    }
    for batch, _ in _batches(workload, sample.records, micro_batch):
        losses = check_losses(workload.task.losses(workload.trainable.model, batch), batch.units)
        found = torch.autograd.grad(losses.sum(), list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, found, strict=True):
            if gradient is not None:
                total[name] += gradient.double() / len(sample.records)
    return total


def _batches(
    workload: Workload, records: Sequence[Sequence[Record]], micro_batch: int
) -> Iterator[tuple[Batch, range]]:
    """The task's batches of at most so many units, and their places in the sample."""
    for start in range(0, len(records), micro_batch):
        places = range(start, min(start + micro_batch, len(records)))
        members = [records[place] for place in places]
        yield workload.task.collate(members, workload.tokenizer, workload.task_config), places
