"""The seam between trainer and engine: one backward pass in, one gradient per privacy unit out.

An engine knows modules and autograd. It knows nothing of clipping, noise, tasks or data.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import ClassVar, Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from wardround.client.trainable import Trainable
from wardround.privacy.errors import WardroundError


class UnsupportedTrainable(WardroundError):
    """A trainable parameter whose per-unit gradient the engine cannot form exactly."""


class Engine(Protocol):
    """Attached to a trainable on entry, detached on exit; the model is left as it was found."""

    name: ClassVar[str]

    def __init__(self, trainable: Trainable) -> None:
        """Refuse (``UnsupportedTrainable``) any trainable parameter it cannot do exactly."""

    def __enter__(self) -> Self:
        """Attach to the model."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Detach from the model."""

    def gradients(
        self, losses: Callable[[], Tensor], unit_of_row: Tensor, units: int
    ) -> dict[str, Tensor]:
        """Gradients of each unit's loss with respect to every trainable parameter.

        Args:
            losses: Runs the forward pass and returns one loss per unit, shape ``(units,)``.
            unit_of_row: Shape ``(rows,)``: the unit each row of the model's input belongs to.
            units: How many units there are; may be 0, and then ``losses`` is not called.

        Returns:
            By wire name, shape ``(units, *parameter.shape)``, float32 (float64 where the
            parameter is float64).
        """


def no_units(trainable: Trainable) -> dict[str, Tensor]:
    """What an empty batch contributes: arrays of the right shapes with no rows."""
    return {
        name: parameter.new_zeros((0, *parameter.shape), dtype=gradient_dtype(parameter))
        for name, parameter in trainable.parameters.items()
    }


def gradient_dtype(parameter: Tensor) -> torch.dtype:
    """Float32, or float64 where the parameter is: clipping in anything shorter misses its bound."""
    return torch.promote_types(parameter.dtype, torch.float32)


def check_losses(losses: Tensor, units: int) -> Tensor:
    """The losses, if they are one number a unit and depend on something trainable.

    Raises:
        ValueError: Another shape, or no path to a trainable parameter.
    """
    if losses.shape != (units,):
        raise ValueError(
            f"losses have shape {tuple(losses.shape)}; expected ({units},): one a unit"
        )
    if not losses.requires_grad:
        raise ValueError("the losses do not depend on any trainable parameter")
    return losses


def refuse_coupling(model: nn.Module) -> None:
    """Refuse a model in which one row's output depends on the other rows, trainable or not.

    Raises:
        UnsupportedTrainable: A batch normalisation would use the batch's own statistics.
    """
    for path, module in model.named_modules():
        if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
            raise UnsupportedTrainable(f"{path} normalises over the batch, which couples units")


def has_own_forward(module: nn.Module) -> bool:
    """Whether somebody has replaced this one module's forward, as dispatch hooks and engines do."""
    return "forward" in vars(module)


def trainable_of(module: nn.Module) -> list[nn.Parameter]:
    """The trainable parameters this module itself holds."""
    return [p for p in module.parameters(recurse=False) if p.requires_grad]
