"""Ranking: teach a model which of a hospital's own notes answers a query.

``RankingTask`` is imported on first use, so that the generated ward can be had without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wardround.client.tasks.ranking.task import RankingTask

__all__ = ["RankingTask"]


def __getattr__(name: str) -> object:
    if name == "RankingTask":
        from wardround.client.tasks.ranking.task import RankingTask

        return RankingTask
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
