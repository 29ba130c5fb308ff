"""Hospitals that send made-up changes, and an oracle that multiplies everything out in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from wardround.strategies.base import Arrays, Brief, Strategy, Update
from wardround.strategies.factors import layers
from wardround.strategies.registry import make_strategy

HOSPITALS = ("east", "north", "south", "west", "far-west")
SHAPES = {"down": (48, 40), "up": (36, 52)}  # (m, n) of each layer
RANK = 4


@dataclass
class Consortium:
    """One strategy, its state, and hospitals whose factors drift by half their own size.

    Attributes:
        strategy: What is tested.
        hospitals: Who takes part.
        ranks: Their own ranks, where they differ.
        rank: The study's.
        seed: Of all draws.
        shapes: (m, n) of each layer.
    """

    strategy: Strategy
    hospitals: Sequence[str] = HOSPITALS
    ranks: Mapping[str, int] = field(default_factory=dict)
    rank: int = RANK
    seed: int = 7
    shapes: Mapping[str, tuple[int, int]] = field(default_factory=lambda: SHAPES)

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)
        self.state: Any = self.strategy.start(self.initial())
        self.round = 0

    def initial(self) -> dict[str, Tensor]:
        """An adapter in use, so that both factors matter from the first round, and a bias."""
        arrays = {"head.bias": self.draw(6)}
        for name, (m, n) in self.shapes.items():
            arrays[f"{name}.lora_A.weight"] = self.draw(self.rank, n) / n**0.5
            arrays[f"{name}.lora_B.weight"] = self.draw(m, self.rank) / m**0.5
        return arrays

    def draw(self, *shape: int) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(shape, generator=self.generator)

    def brief(self, hospital: str) -> Brief:
        """What this hospital gets in the coming round."""
        return self.strategy.brief(self.state, self.round + 1, self.ranks.get(hospital))

    def update(self, hospital: str, drift: float = 0.5) -> Update:
        """A change of every array that trains, as large as ``drift`` times the adapter's."""
        brief = self.brief(hospital)
        change = {
            name: drift
            * self.draw(*brief.arrays[name].shape)
            / max(brief.arrays[name].shape) ** 0.5
            for name in brief.trains
        }
        return Update(hospital, change, self.ranks.get(hospital))

    def ended(self, update: Update) -> dict[str, Tensor]:
        """Each layer's whole product at a hospital after its round, background and all.

        What a hospital keeps to itself is taken as the state has it: only what is shared averages.
        """
        brief = self.brief(update.hospital)
        started = {name: self.state[name] for name in brief.keeps} | dict(brief.arrays)
        after = {
            name: array.double() + update.change.get(name, torch.zeros_like(array))
            for name, array in started.items()
        }
        return dense(after, brief.background)

    def run(self, updates: Sequence[Update]) -> None:
        """One round with these answers."""
        aggregation = self.strategy.begin(self.state, self.round + 1)
        for update in updates:
            aggregation.add(update)
        self.state, self.round = aggregation.finish(), self.round + 1

    def deployed(self) -> dict[str, Tensor]:
        """Each layer's whole product in the deployed model."""
        model = self.strategy.deploy(self.state)
        return dense({n: a.double() for n, a in model.arrays.items()}, model.background)

    def round_error(self) -> float:
        """Runs a round; how far the deployed products are from the mean of the hospitals' own."""
        updates = [self.update(hospital) for hospital in self.hospitals]
        wanted = mean([self.ended(update) for update in updates])
        self.run(updates)
        found = self.deployed()
        away = sum(float((found[name] - wanted[name]).square().sum()) for name in wanted)
        return (away / sum(float(array.square().sum()) for array in wanted.values())) ** 0.5


def dense(arrays: Arrays, background: Arrays) -> dict[str, Tensor]:
    """B·A, or B·R·A, and the background, multiplied out: the oracle of every exactness test."""
    products = {}
    for name in layers(arrays):
        b, a = (arrays[f"{name}.lora_{factor}.weight"].double() for factor in "BA")
        core = arrays.get(f"{name}.lora_R.weight", torch.eye(a.shape[0]))
        products[name] = b @ core.double() @ a
        if f"{name}.background_A.weight" in background:
            left, right = (background[f"{name}.background_{f}.weight"].double() for f in "BA")
            products[name] += left @ right
    return products


def mean(products: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of hospitals' products."""
    return {name: torch.stack([p[name] for p in products]).mean(0) for name in products[0]}


@pytest.fixture(scope="session")
def consortium() -> type[Consortium]:
    """``consortium(strategy, …)``."""
    return Consortium


@pytest.fixture(scope="session")
def of() -> Any:
    """``of(name, **settings)``: the consortium of a registered strategy."""

    def make(name: str, /, hospitals: Sequence[str] = HOSPITALS, **settings: Any) -> Consortium:
        extra = {
            key: settings.pop(key) for key in ("ranks", "rank", "seed", "shapes") if key in settings
        }
        return Consortium(make_strategy(name, settings), hospitals, **extra)

    return make
