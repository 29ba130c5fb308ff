"""What every averaging strategy shares: some arrays move, and each moves by the mean change.

A strategy says which arrays move in a round and, if it likes, what is done to the state
afterwards; everything else is here. Every hospital counts the same, because a weight by number of
records would itself tell how many records there are. The mean is linear in the updates, so it may
also be handed their sum: all of these strategies work under secure aggregation. Hospitals of a
lower rank train the first rows of A and columns of B; the rest is background to them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wardround.strategies.base import Arrays, Brief, Model, State, SummingAggregation, Update
from wardround.strategies.factors import adapter, cut, cut_off, pad, pick, write_background


def require_like(change: Arrays, expected: Arrays) -> None:
    """Raise ``ValueError`` unless names and shapes are those expected."""
    odd = sorted(change.keys() ^ expected.keys())
    if odd:
        raise ValueError(f"array {odd[0]!r} is missing or unknown")
    for name, array in change.items():
        if array.shape != expected[name].shape:
            raise ValueError(f"array {name!r} has shape {tuple(array.shape)}")


class MeanOfChanges:
    """A running sum in float64, so that the order of arrival does not show in float32."""

    def __init__(self, arrays: Arrays) -> None:
        self._sum = {name: torch.zeros_like(a, dtype=torch.float64) for name, a in arrays.items()}
        self._count = 0

    def add_sum(self, total: Arrays, count: int) -> None:
        """Take in the sum of ``count`` hospitals' changes."""
        require_like(total, self._sum)
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
        return tuple(adapter(state))

    def settle(self, state: State, round_number: int) -> State:
        """The state after the mean change was added; strategies may give it another form."""
        return state

    def brief(self, state: Arrays, round_number: int, rank: int | None = None) -> Brief:
        """The whole adapter, or as much of it as the rank holds, and which part of it moves."""
        arrays, moving = adapter(state), self.moving(state, round_number)
        if rank is None:
            return Brief(arrays, moving)
        rest: dict[str, Tensor] = {}
        for layer, product in cut_off(arrays, rank).items():
            rest |= write_background(layer, product)
        return Brief(cut(arrays, rank), moving, background=rest)

    def begin(self, state: Arrays, round_number: int) -> SummingAggregation:
        """An empty mean."""
        return _Round(self, state, round_number)

    def deploy(self, state: Arrays) -> Model:
        """The adapter as it is."""
        return Model(adapter(state))


class _Round:
    """One round of an averaging strategy."""

    def __init__(self, strategy: Averaging, state: Arrays, round_number: int) -> None:
        self._strategy, self._state, self._number = strategy, state, round_number
        self._moving = pick(state, strategy.moving(state, round_number))
        self._mean = MeanOfChanges(self._moving)

    def add(self, update: Update) -> None:
        """Take in one hospital's change."""
        if update.rank is None:
            self._mean.add_sum(update.change, 1)
            return
        require_like(update.change, cut(self._moving, update.rank))
        self._mean.add_sum(pad(update.change, self._moving), 1)

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
