"""The seam between trainer and engine: one backward pass in, one gradient per privacy unit out.

An engine knows modules and autograd. It knows nothing of clipping, noise, tasks or data.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import ClassVar, Protocol, Self

from torch import Tensor

from wardround.client.trainable import Trainable


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
            By wire name, shape ``(units, *parameter.shape)``, float32.
        """
