"""Medical editing: teach a model corrections that several hospitals' records agree on.

``EditingTask`` is imported on first use, so that the generated world can be had without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wardround.client.tasks.editing.task import EditingTask

__all__ = ["EditingTask"]


def __getattr__(name: str) -> object:
    if name == "EditingTask":
        from wardround.client.tasks.editing.task import EditingTask

        return EditingTask
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
