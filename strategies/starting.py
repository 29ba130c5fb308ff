"""Where a study starts: fresh factors suit any strategy, tuned ones only one that sends just those.

A fresh adapter changes nothing, whatever its A, because its B is zero; so strategies may draw
factors of their own. An adapter to go on from says something. Knows nothing of tasks.
"""

from __future__ import annotations

import torch

from wardround.privacy.errors import BadInput
from wardround.strategies.base import Arrays, Strategy
from wardround.strategies.factors import B


def require_same_start(strategy: Strategy, first: Arrays, state: Arrays) -> None:
    """Refuse a strategy whose hospitals would not start where the task does, where that matters.

    Args:
        strategy: Combines the updates.
        first: The task's own first values.
        state: What ``strategy.start`` made of them.

    Raises:
        BadInput: The first values do something, and hospitals would be sent others.
    """
    if not any(name.endswith(B) and bool(array.any()) for name, array in first.items()):
        return
    sent = strategy.brief(state, 1).arrays
    if any(name not in sent or not torch.equal(sent[name], first[name]) for name in first):
        raise BadInput(
            f"strategy {strategy.name!r} starts from factors of its own; the task starts from an "
            "adapter that was made before: merge that into the base, or use fedavg"
        )
