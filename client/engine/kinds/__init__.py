"""Module kinds of the fused engine, one file each; importing the package registers them."""

from wardround.client.engine.kinds import linear, lora
from wardround.client.engine.kinds.registry import Forward, Kind, forward_for, register

__all__ = ["Forward", "Kind", "forward_for", "linear", "lora", "register"]
