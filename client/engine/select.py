"""Which engine forms the gradients, by name."""

from __future__ import annotations

from wardround.client.engine.base import Engine, UnsupportedTrainable
from wardround.client.engine.fused import FusedEngine
from wardround.client.trainable import Trainable
from wardround.privacy.errors import BadInput

ENGINES = ("auto", "fused", "opacus")


def choose_engine(trainable: Trainable, name: str = "auto") -> Engine:
    """The engine called ``name`` for this trainable; ``auto`` takes the fastest that is exact.

    Raises:
        BadInput: No engine has that name.
        UnsupportedTrainable: A trainable parameter is of a kind the engine does not know.
    """
    if name not in ENGINES:
        raise BadInput(f"engine is {name!r}; it must be one of {', '.join(ENGINES)}")
    if name != "opacus":
        try:
            return FusedEngine(trainable)
        except UnsupportedTrainable:
            if name == "fused":
                raise
    # Opacus takes seconds to import, and most studies never need it.
    from wardround.client.engine.opacus_hooks import OpacusEngine

    return OpacusEngine(trainable)
