"""Group-robust tuning: hospitals whose records are fitted worst count more, by noised losses alone.

Each hospital reports, beside its change, the mean loss of its records, cut, noised and charged at
home (``privacy.loss_report``). Weights follow exponentiated gradients: a hospital's logarithm grows
by the step times its loss, so the mean of changes moves towards what helps the worst. What is known
from earlier rounds weighs this round's changes, so each can still be added as it arrives. Sources:
Sagawa et al. (2020), "Distributionally robust neural networks", algorithm 1; Ramesh et al. (2024),
"Group robust preference optimization", for preferences. Knows nothing of tasks or noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wardround.privacy.loss_report import LOSS
from wardround.strategies.base import SERVER, Arrays, Brief, Model, State, Strategy, Update

WEIGHT = f"{SERVER}worst/"  # a hospital's logarithm, by its name


@dataclass(frozen=True)
class WorstHospital:
    """A strategy whose mean of changes is weighted towards the hospitals that are fitted worst.

    Attributes:
        strategy: One whose aggregate is the mean of changes.
        step: How far a loss of 1 moves a hospital's logarithm.
    """

    strategy: Strategy
    step: float

    @property
    def name(self) -> str:
        """The strategy's own."""
        return self.strategy.name

    def start(self, arrays: Arrays) -> State:
        """The strategy's own; all hospitals count the same."""
        return self.strategy.start(arrays)

    def brief(self, state: Arrays, round_number: int, rank: int | None = None) -> Brief:
        """The strategy's own, and a place for the loss."""
        brief = self.strategy.brief(_own(state), round_number, rank)
        arrays = {**brief.arrays, LOSS: torch.zeros(1)}
        return replace(brief, arrays=arrays, trains=(*brief.trains, LOSS))

    def begin(self, state: Arrays, round_number: int) -> _Round:
        """An empty round."""
        return _Round(self, state, round_number)

    def deploy(self, state: Arrays) -> Model:
        """The strategy's own."""
        return self.strategy.deploy(_own(state))


class _Round:
    """One round: a weighted sum of changes, and the losses that came with them."""

    def __init__(self, worst: WorstHospital, state: Arrays, round_number: int) -> None:
        self._worst, self._state = worst, state
        self._inner = worst.strategy.begin(_own(state), round_number)
        self._sum: dict[str, Tensor] = {}
        self._weight = 0.0
        self._losses: dict[str, float] = {}

    def add(self, update: Update) -> None:
        """Take in one hospital's change, weighted by what is known of it, and its loss."""
        weight = math.exp(logarithm(self._state, update.hospital))
        for name, array in update.change.items():
            if name == LOSS:
                self._losses[update.hospital] = float(array)
                continue
            held = self._sum.get(name)
            part = weight * array.double()
            self._sum[name] = part if held is None else held.add_(part)
        self._weight += weight

    def finish(self) -> State:
        """The strategy's next state, and every hospital's next logarithm; the largest is 0."""
        if not self._weight:
            raise ValueError("no update to aggregate")
        mean = {name: total / self._weight for name, total in self._sum.items()}
        self._inner.add(Update("", mean))
        known = {name.removeprefix(WEIGHT) for name in self._state if name.startswith(WEIGHT)}
        moved = {
            hospital: logarithm(self._state, hospital)
            + self._worst.step * self._losses.get(hospital, 0.0)
            for hospital in known | self._losses.keys()
        }
        top = max(moved.values(), default=0.0)
        weights = {WEIGHT + hospital: torch.tensor([log - top]) for hospital, log in moved.items()}
        return {**self._inner.finish(), **weights}


def logarithm(state: Arrays, hospital: str) -> float:
    """What a hospital counts, as a logarithm; 0 for one that is new."""
    found = state.get(WEIGHT + hospital)
    return 0.0 if found is None else float(found)


def _own(state: Arrays) -> State:
    """The part of the state that is the strategy's own."""
    return {name: array for name, array in state.items() if not name.startswith(WEIGHT)}
