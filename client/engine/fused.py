"""The fused engine: per-unit gradients formed inside one ordinary backward pass.

Each trainable layer's forward becomes one autograd node whose backward pass leaves one gradient per
unit in a sink, in place of the summed weight gradient: the step costs what an ordinary one costs,
because a LoRA factor has ``rank * width`` numbers a unit where activations have ``tokens * width``.
Source for the per-unit sum: Goodfellow (2015), "Efficient per-example gradient computations"; for
doing it on LoRA factors alone: Yu et al. (2022), "Differentially private fine-tuning of language
models", section 3. Knows nothing of clipping, noise or tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import ClassVar, Self

import torch
from torch import Tensor

from wardround.client.engine.base import (
    UnsupportedTrainable,
    check_losses,
    has_own_forward,
    no_units,
    refuse_coupling,
    trainable_of,
)
from wardround.client.engine.kinds import Forward, forward_for
from wardround.client.engine.sink import ONE_GROUP, Groups, Sink, group_rows
from wardround.client.trainable import Trainable


class FusedEngine:
    """Per-unit gradients at the price of an ordinary step.

    Privacy: exact per-unit gradients of whatever the losses are; a loss that couples units is the
    task's fault and is not seen here. A use of a trainable parameter that the engine does not see
    is an error.
    """

    name: ClassVar[str] = "fused"

    def __init__(self, trainable: Trainable) -> None:
        self._trainable = trainable
        self._sink = Sink(trainable.parameters)
        self._forwards: dict[str, Forward] = {}
        names = {id(p): name for name, p in trainable.parameters.items()}
        for path, module in trainable.model.named_modules():
            forward = forward_for(module, self._sink)
            own = [names[id(p)] for p in trainable_of(module)]
            if own and forward is None:
                raise UnsupportedTrainable(
                    f"{own[0]}: the fused engine does not know {type(module).__name__}"
                )
            if forward is not None and any(p.requires_grad for p in module.parameters()):
                self._forwards[path] = forward

    def __enter__(self) -> Self:
        """Replace the forwards.

        Raises:
            RuntimeError: Somebody else, such as another engine, has replaced one already.
            UnsupportedTrainable: The model couples the rows of a batch.
        """
        refuse_coupling(self._trainable.model)
        for path in self._forwards:
            if has_own_forward(self._trainable.model.get_submodule(path)):
                raise RuntimeError(f"{path}: its forward was replaced already")
        for path, forward in self._forwards.items():
            self._trainable.model.get_submodule(path).forward = forward
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the modules their own forwards back."""
        for path in self._forwards:
            vars(self._trainable.model.get_submodule(path)).pop("forward", None)
        self._sink.abandon()

    def gradients(
        self, losses: Callable[[], Tensor], unit_of_row: Tensor, units: int
    ) -> dict[str, Tensor]:
        """Per-unit gradients; see ``Engine.gradients``.

        Raises:
            ValueError: Losses or rows of another number than the batch says.
            RuntimeError: A parameter is used where the engine cannot see it.
        """
        if units == 0:
            return no_units(self._trainable)
        device = next(iter(self._trainable.parameters.values())).device
        groups = group_rows(unit_of_row.to(device), units)  # moved once, not once a layer
        return self._collect(lambda: check_losses(losses(), units).sum(), groups)

    def total(self, losses: Callable[[], Tensor]) -> dict[str, Tensor]:
        """The summed gradient through the same nodes, for public data and for measuring.

        Privacy: none. Nothing is clipped and units are not kept apart.
        """
        summed = self._collect(lambda: losses().sum(), ONE_GROUP)
        return {name: gradient[0] for name, gradient in summed.items()}

    def _collect(self, loss: Callable[[], Tensor], groups: Groups) -> dict[str, Tensor]:
        """One forward and backward pass with the sink open."""
        parameters = self._trainable.parameters
        kept = {name: p.grad for name, p in parameters.items()}
        for p in parameters.values():
            p.grad = None
        self._sink.open(groups)
        try:
            with torch.enable_grad():
                total = loss()
                with torch.autocast(total.device.type, enabled=False):  # nodes choose their types
                    total.backward()  # type: ignore[no-untyped-call]
            unseen = [name for name, p in parameters.items() if p.grad is not None]
            if unseen:
                raise RuntimeError(f"{unseen[0]} is used outside its own module's forward")
            return self._sink.close()
        finally:
            self._sink.abandon()
            for name, p in parameters.items():
                p.grad = kept[name]
