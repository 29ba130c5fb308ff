"""Where the nodes of one backward pass leave what each privacy unit contributes.

A weight gradient is a sum of outer products over rows and positions. Summed per unit instead of
over the whole batch it costs the same multiplications, so it is formed *instead of* the summed
gradient, never beside it: Goodfellow (2015), "Efficient per-example gradient computations", with
the sums kept apart by unit. Knows groups of rows; knows nothing of modules, clipping or noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wardround.client.engine.base import gradient_dtype


@dataclass(frozen=True)
class Groups:
    """Which rows belong to which unit.

    Attributes:
        units: How many units.
        rows: How many rows every forward pass must have; ``None`` where any number will do.
        index: Shape ``(rows,)``, each row's unit; ``None`` where unit ``u`` owns the ``u``-th of
            ``units`` equal runs of consecutive rows.
    """

    units: int
    rows: int | None
    index: Tensor | None


ONE_GROUP = Groups(1, None, None)  # the ordinary summed gradient, which protects nobody


def group_rows(unit_of_row: Tensor, units: int) -> Groups:
    """Groups as a batch names them.

    Raises:
        ValueError: Not one whole number in ``[0, units)`` a row.
    """
    if unit_of_row.dim() != 1 or unit_of_row.dtype != torch.int64:
        raise ValueError("unit_of_row must be one int64 a row")
    index = unit_of_row.cpu()
    rows = len(index)
    if rows == 0 or int(index.min()) < 0 or int(index.max()) >= units:
        raise ValueError(f"unit_of_row must name, for every row, a unit in [0, {units})")
    if rows % units == 0:
        runs = torch.arange(units).repeat_interleave(rows // units)
        if torch.equal(index, runs):
            return Groups(units, rows, None)
    return Groups(units, rows, unit_of_row)


def sum_rows(per_row: Tensor, groups: Groups, held: Tensor | None = None) -> Tensor:
    """Each row's gradient added to its unit's: ``(rows, *shape)`` becomes ``(units, *shape)``.

    Args:
        per_row: One gradient a row.
        groups: Which unit each row belongs to.
        held: What the units have so far; changed in place.
    """
    if groups.index is None:
        summed = per_row.reshape(groups.units, -1, *per_row.shape[1:]).sum(1)
        return summed if held is None else held.add_(summed)
    if held is None:
        held = per_row.new_zeros((groups.units, *per_row.shape[1:]))
    return held.index_add_(0, groups.index.to(per_row.device), per_row)


class Sink:
    """Collects contributions by parameter between ``open`` and ``close``.

    Privacy: what is kept is one row per unit; the sum over units is never formed here.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._parameters = dict(parameters)
        self._name = {id(parameter): name for name, parameter in parameters.items()}
        self._groups: Groups | None = None
        self._held: dict[str, Tensor] = {}
        self._ran: dict[str, bool] = {}

    def open(self, groups: Groups) -> None:
        """Start a backward pass."""
        if self._groups is not None:
            raise RuntimeError("gradients are already being collected")
        self._groups = groups

    def close(self) -> dict[str, Tensor]:
        """End the pass; zeros for a parameter the losses did not reach.

        Raises:
            RuntimeError: A layer ran without gradient tracking only, so its gradient was lost.
        """
        groups, held, ran = self._groups, self._held, self._ran
        self.abandon()
        if groups is None:
            raise RuntimeError("no gradients are being collected")
        lost = [name for name, tracked in ran.items() if not tracked]
        if lost:
            raise RuntimeError(
                f"{lost[0]} ran without gradient tracking: reentrant checkpointing needs inputs "
                "that require gradients (model.enable_input_require_grads())"
            )
        return {
            name: held[name]
            if name in held
            else p.new_zeros((groups.units, *p.shape), dtype=gradient_dtype(p))
            for name, p in self._parameters.items()
        }

    def abandon(self) -> None:
        """Forget the pass, as after an error."""
        self._groups, self._held, self._ran = None, {}, {}

    def ran(self, *parameters: Tensor | None) -> None:
        """Note that a forward pass used these, and whether autograd was following."""
        if self._groups is None:
            return
        tracked = torch.is_grad_enabled()
        for parameter in parameters:
            name = self._name.get(id(parameter))
            if name is not None:
                self._ran[name] = self._ran.get(name, False) or tracked

    def outer(self, parameter: Tensor, left: Tensor, right: Tensor) -> None:
        """Add, for each unit, the sum over its rows and positions of ``left`` times ``right``.

        Args:
            parameter: A parameter of shape ``(o, i)``.
            left: Shape ``(rows, ..., o)``.
            right: Shape ``(rows, ..., i)``.
        """
        name = self._name.get(id(parameter))
        if name is None:  # frozen, though PEFT thaws whole adapters after disable_adapter()
            return
        groups = self._check(left.shape[0])
        transposed = left.shape[-1] > right.shape[-1]
        short, long = (right, left) if transposed else (left, right)  # see kinds/lora.py
        dtype = gradient_dtype(parameter)
        runs = groups.units if groups.index is None else len(short)
        short = short.to(dtype).reshape(runs, -1, short.shape[-1]).transpose(1, 2)
        long = long.to(dtype).reshape(runs, -1, long.shape[-1])
        held = self._held.get(name)
        if held is not None and transposed:
            held = held.transpose(1, 2)
        if groups.index is not None:
            held = sum_rows(torch.bmm(short, long), groups, held)
        elif held is None:
            held = torch.bmm(short, long)
        else:
            held.baddbmm_(short, long)
        self._held[name] = held.transpose(1, 2) if transposed else held

    def rows(self, parameter: Tensor, per_row: Tensor) -> None:
        """Add each row's own gradient, shape ``(rows, *parameter.shape)``, to its unit's."""
        name = self._name.get(id(parameter))
        if name is None:
            return
        groups = self._check(per_row.shape[0])
        per_row = per_row.to(gradient_dtype(parameter))
        self._held[name] = sum_rows(per_row, groups, self._held.get(name))

    def _check(self, rows: int) -> Groups:
        """The open groups, if a layer saw as many rows as they have."""
        if self._groups is None:
            raise RuntimeError("a backward pass ran outside the engine's gradients()")
        if self._groups.rows not in (None, rows):
            raise ValueError(
                f"a trainable layer saw {rows} rows and unit_of_row names {self._groups.rows}: "
                "the first axis of its input must be the row"
            )
        return self._groups
