"""Which engine forms the gradients, by name."""

from __future__ import annotations

from wardround.client.engine.base import Engine
from wardround.client.engine.fused import FusedEngine
from wardround.client.trainable import Trainable
from wardround.privacy.errors import BadInput


def choose_engine(trainable: Trainable, name: str = "auto") -> Engine:
    """The engine called ``name`` for this trainable; ``auto`` takes the fastest that is exact.

    Raises:
        BadInput: No engine has that name.
        UnsupportedTrainable: A trainable parameter is of a kind the engine does not know.
    """
    if name in ("auto", FusedEngine.name):
        return FusedEngine(trainable)
    raise BadInput(f"engine is {name!r}; it must be one of 'auto', 'fused'")
