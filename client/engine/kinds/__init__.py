"""Module kinds of the fused engine, one file each; importing the package registers them."""

from wardround.client.engine.kinds import conv, embedding, linear, lora, norm, per_row
from wardround.client.engine.kinds.registry import Forward, Kind, forward_for, register

__all__ = [
    "Forward",
    "Kind",
    "conv",
    "embedding",
    "forward_for",
    "linear",
    "lora",
    "norm",
    "per_row",
    "register",
]
