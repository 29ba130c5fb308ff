"""Per-unit gradients: what DP-SGD clips, formed inside the ordinary backward pass."""

from wardround.client.engine.accumulate import UnitAccumulator
from wardround.client.engine.base import Engine, UnsupportedTrainable
from wardround.client.engine.fused import FusedEngine
from wardround.client.engine.per_row import PerRow
from wardround.client.engine.select import choose_engine

__all__ = [
    "Engine",
    "FusedEngine",
    "PerRow",
    "UnitAccumulator",
    "UnsupportedTrainable",
    "choose_engine",
]
