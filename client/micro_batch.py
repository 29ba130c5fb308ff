"""How many units' gradients fit into memory at once, found without looking at anybody's data.

The task's own made-up records stand in for a hospital's: one large unit is run through the model
once alone and once beside a copy of itself, and the difference is what a unit costs. So the size
follows from study, model and machine, and never from who was chosen. It changes no result: a sum
of clipped gradients does not depend on how many of them are in memory together. Knows nothing of
noise or plans.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wardround.client.gradients import Workload
from wardround.client.hospital import group_units
from wardround.client.tasks.base import Batch, Record
from wardround.privacy.errors import BadInput
from wardround.privacy.units import Unit

ROOM = 4  # a hospital's own rows may be longer than made-up ones
SHARE = 0.5  # of the free memory; the rest is for others and for the allocator
MOST_UNITS = 1024
_LOOKED_AT = 256  # made-up units among which the largest is sought
_SEED = 0


def units_at_once(bytes_per_unit: int, free_bytes: int) -> int:
    """The power of two of units that fit, at least 1 and at most ``MOST_UNITS``."""
    fitting = int(free_bytes * SHARE) // (ROOM * max(1, bytes_per_unit))
    fitting = min(MOST_UNITS, max(1, fitting))
    return int(2 ** (fitting.bit_length() - 1))


def bytes_per_unit(workload: Workload, kind: Unit) -> int:
    """What one more unit in a micro-batch costs, in bytes, measured on made-up records.

    Raises:
        BadInput: The task makes up no records, or none that are grouped like this.
    """
    unit = _largest(workload, _made_up(workload, kind))
    with workload.engine:
        one, two = (_bytes(workload, _collate(workload, [unit] * count)) for count in (1, 2))
    gradient = sum(p.numel() for p in workload.trainable.parameters.values()) * 4
    return max(two - one, 0) + 2 * gradient  # a second one while it is clipped


def _made_up(workload: Workload, kind: Unit) -> list[tuple[Record, ...]]:
    """Units of the task's own generator."""
    task, config = workload.task, workload.task_config
    with tempfile.TemporaryDirectory(prefix="wardround-probe-") as scratch:
        try:
            dealt = task.deal(None, Path(scratch) / "dealt", 1, _SEED, config)
            return group_units(task.load(dealt.records[0], config), kind)
        except BadInput as error:
            raise BadInput(
                f"micro_batch is 'auto', and task {task.name!r} makes up no records of a {kind} to "
                f"measure with; give a number ({error})"
            ) from error


def _largest(workload: Workload, units: Sequence[Sequence[Record]]) -> Sequence[Record]:
    """The unit whose rows hold the most numbers."""

    def size(unit: Sequence[Record]) -> int:
        return sum(array.numel() for array in _collate(workload, [unit]).inputs.values())

    return max(units[:_LOOKED_AT], key=size)


def _collate(workload: Workload, units: Sequence[Sequence[Record]]) -> Batch:
    """The task's batch for these units."""
    return workload.task.collate(units, workload.tokenizer, workload.task_config)


def _bytes(workload: Workload, batch: Batch) -> int:
    """The most memory that per-unit gradients of this batch need beside the model.

    On a GPU what the allocator saw. On a CPU, which keeps no such account: what autograd holds for
    the backward pass, and as much again for what that pass makes of it.
    """
    losses = partial(workload.task.losses, workload.trainable.model, batch)
    device = next(iter(workload.trainable.parameters.values())).device
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        workload.engine.gradients(losses, batch.unit_of_row, batch.units)
        return torch.cuda.max_memory_allocated(device) - before
    own = {p.untyped_storage().data_ptr() for p in workload.trainable.model.parameters()}
    held: dict[int, int] = {}

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    def unpack(tensor: Tensor) -> Tensor:
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        workload.engine.gradients(losses, batch.unit_of_row, batch.units)
    return 2 * sum(held.values())
