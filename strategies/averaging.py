"""What every averaging strategy shares: some arrays move, and each moves by the mean change.

A strategy says which arrays move in a round and, if it likes, what is done to the state
afterwards; everything else is here. Every hospital counts the same, because a weight by number of
records would itself tell how many records there are. The mean is linear in the updates, so it may
also be handed their sum: all of these strategies work under secure aggregation.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from wardround.strategies.base import (
    Aggregation,
    Arrays,
    Brief,
    Model,
    State,
    Update,
    adapter_arrays,
)


class MeanOfChanges:
    """A running sum in float64, so that the order of arrival does not show in float32."""

    def __init__(self, arrays: Arrays) -> None:
        self._sum = {name: torch.zeros_like(a, dtype=torch.float64) for name, a in arrays.items()}
        self._count = 0

    def add(self, update: Update) -> None:
        """Take in one hospital's change."""
        self.add_sum(update.change, 1)

    def add_sum(self, total: Arrays, count: int) -> None:
        """Take in the sum of ``count`` hospitals' changes."""
        if total.keys() != self._sum.keys():
            raise ValueError(f"expected changes of {sorted(self._sum)}, found {sorted(total)}")
        for name, held in self._sum.items():
            held += total[name]
        self._count += count

    def mean(self) -> dict[str, Tensor]:
        """The mean change, in float64.

        Raises:
            ValueError: Nobody sent anything.
        """
        if not self._count:
            raise ValueError("no update to aggregate")
        return {name: total / self._count for name, total in self._sum.items()}


class Averaging:
    """Base of the strategies whose aggregate is a mean of changes."""

    def start(self, arrays: Arrays) -> State:
        """The adapter's arrays are all there is to keep."""
        return dict(arrays)

    def moving(self, state: Arrays, round_number: int) -> tuple[str, ...]:
        """Names of the arrays that move in this round; all of them unless a strategy says less."""
        return tuple(adapter_arrays(state))

    def settle(self, state: State, round_number: int) -> State:
        """The state after the mean change was added; strategies may give it another form."""
        return state

    def brief(self, state: Arrays, round_number: int, rank: int | None = None) -> Brief:
        """The whole adapter, and which part of it moves."""
        return Brief(adapter_arrays(state), self.moving(state, round_number))

    def begin(self, state: Arrays, round_number: int) -> Aggregation:
        """An empty mean."""
        return _Round(self, state, round_number)

    def deploy(self, state: Arrays) -> Model:
        """The adapter as it is."""
        return Model(adapter_arrays(state))


class _Round:
    """One round of an averaging strategy."""

    def __init__(self, strategy: Averaging, state: Arrays, round_number: int) -> None:
        self._strategy, self._state, self._number = strategy, state, round_number
        self._mean = MeanOfChanges(_pick(state, strategy.moving(state, round_number)))

    def add(self, update: Update) -> None:
        """Take in one hospital's change."""
        self._mean.add(update)

    def add_sum(self, total: Arrays, count: int) -> None:
        """Take in the sum of ``count`` hospitals' changes."""
        self._mean.add_sum(total, count)

    def finish(self) -> State:
        """The state moved by the mean change, then settled."""
        moved = {
            name: (self._state[name].double() + change).float()
            for name, change in self._mean.mean().items()
        }
        return self._strategy.settle({**self._state, **moved}, self._number)


def _pick(arrays: Arrays, names: Iterable[str]) -> dict[str, Tensor]:
    """The arrays called ``names``."""
    return {name: arrays[name] for name in names}
