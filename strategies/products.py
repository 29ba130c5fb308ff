"""What strategies that combine products B·A, and not factors, share.

Products are not linear in the factors that hospitals send, so these rules must see every single
update, and hold all of a round until it ends. Arrays that are no LoRA factors are averaged.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from wardround.strategies.averaging import MeanOfChanges, require_like
from wardround.strategies.base import Aggregation, Arrays, Brief, Model, State, Update
from wardround.strategies.factors import (
    adapter,
    backgrounds,
    cut,
    others,
    pick,
    require_layers,
)


class Products(ABC):
    """Base of the strategies whose aggregate is made of the hospitals' products."""

    name: ClassVar[str]

    def start(self, arrays: Arrays) -> State:
        """The adapter as the task drew it."""
        require_layers(arrays, self.name)
        return dict(arrays)

    def brief(self, state: Arrays, round_number: int, rank: int | None = None) -> Brief:
        """The adapter, as much of it as the rank holds, and what lies behind it."""
        arrays = adapter(state) if rank is None else cut(adapter(state), rank)
        return Brief(arrays, tuple(arrays), background=backgrounds(state))

    def begin(self, state: Arrays, round_number: int) -> Aggregation:
        """An empty round."""
        return _Round(self, state, round_number)

    @abstractmethod
    def merge(self, state: State, round_number: int, updates: Sequence[Update]) -> State:
        """The next state; arrays that are no factors have moved already."""

    def deploy(self, state: Arrays) -> Model:
        """The adapter, and what lies behind it."""
        return Model(adapter(state), backgrounds(state))


class _Round:
    """One round, held until it ends."""

    def __init__(self, strategy: Products, state: Arrays, round_number: int) -> None:
        self._strategy, self._state, self._number = strategy, state, round_number
        self._others = MeanOfChanges(pick(state, others(adapter(state))))
        self._updates: list[Update] = []

    def add(self, update: Update) -> None:
        """Take in one hospital's change."""
        require_like(update.change, _start(self._state, update))
        self._others.add_sum(pick(update.change, others(update.change)), 1)
        self._updates.append(update)

    def finish(self) -> State:
        """The strategy's merge of all updates, in an order that does not depend on arrival."""
        moved = {
            name: (self._state[name].double() + change).float()
            for name, change in self._others.mean().items()
        }
        ordered = sorted(self._updates, key=lambda update: update.hospital)
        return self._strategy.merge({**self._state, **moved}, self._number, ordered)


def after(state: Arrays, update: Update) -> dict[str, Tensor]:
    """What a hospital's adapter had become: what it started from and its change."""
    start = _start(state, update)
    return {name: start[name].double() + change for name, change in update.change.items()}


def _start(state: Arrays, update: Update) -> dict[str, Tensor]:
    """What the hospital started from."""
    return adapter(state) if update.rank is None else cut(adapter(state), update.rank)
