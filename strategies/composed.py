"""A strategy with parts exchanged: another way to combine, another way to step, late answers.

A strategy whose aggregate is the mean of changes sees, instead of the hospitals' changes, one
change that the parts have made of them; what it does with it stays its own. So a robust rule or a
server optimiser goes with every such strategy and none of them knows of it. All of this looks at
noised values only: post-processing, which costs no privacy.

Late answers count ``(1 + age) ** -power`` (Nguyen et al. 2022, "Federated learning with buffered
asynchronous aggregation", section 5: power 1/2). Robust rules hold a round's changes in memory;
without one, a change is added and dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from wardround.strategies.base import (
    SERVER,
    Aggregation,
    Arrays,
    Brief,
    Model,
    State,
    Strategy,
    Update,
)
from wardround.strategies.parts import NoiseCorrection, Parts, Robust, Server
from wardround.strategies.robust.base import Rule, TooFewAnswers
from wardround.strategies.robust.bounded import NormBoundedMean
from wardround.strategies.robust.coordinates import Median, TrimmedMean
from wardround.strategies.robust.geometric import GeometricMedian
from wardround.strategies.robust.krum import Krum, MultiKrum
from wardround.strategies.scaffold import CONTROLS, Scaffold
from wardround.strategies.server_optimizers import (
    Adam,
    Momentum,
    ServerOptimizer,
    Variance,
    Yogi,
)
from wardround.strategies.worst_hospital import WorstHospital

OPTIMIZER = f"{SERVER}optimizer/"  # what a server optimiser keeps between rounds


@dataclass(frozen=True)
class Composed:
    """``strategy`` with parts exchanged.

    Attributes:
        strategy: One whose aggregate is the mean of changes.
        rule: Combines the changes robustly; their mean without.
        optimizer: Makes the step of the combined change; the change itself without.
        correction: How noise is taken out of an optimiser's squares.
        staleness_power: How fast the weight of a late answer falls with its age.
        scaffold: Corrects hospitals' steps by control variates.
    """

    strategy: Strategy
    rule: Rule | None = None
    optimizer: ServerOptimizer | None = None
    correction: NoiseCorrection = NoiseCorrection.PLAN
    staleness_power: float = 0.5
    scaffold: Scaffold | None = None

    @property
    def name(self) -> str:
        """The strategy's own: parts do not change what leaves a hospital."""
        return self.strategy.name

    @property
    def corrects(self) -> bool:
        """Whether noise has to be taken out of anything."""
        squares = self.optimizer is not None and self.optimizer.squares
        return squares and self.correction is not NoiseCorrection.NONE

    def start(self, arrays: Arrays) -> State:
        """The strategy's own; optimisers start empty."""
        return self.strategy.start(arrays)

    def brief(self, state: Arrays, round_number: int, rank: int | None = None) -> Brief:
        """The strategy's own."""
        return self.strategy.brief(_without_parts(state), round_number, rank)

    def corrections(self, state: Arrays, hospital: str) -> dict[str, Tensor]:
        """What this hospital alone is sent, to be added to its gradients; mostly nothing."""
        return {} if self.scaffold is None else self.scaffold.corrections(state, hospital)

    def begin(self, state: Arrays, round_number: int) -> Aggregation:
        """An empty round."""
        return _Round(self, state, round_number)

    def deploy(self, state: Arrays) -> Model:
        """The strategy's own."""
        return self.strategy.deploy(_without_parts(state))


class _Gathering(Protocol):
    """What becomes of changes as they arrive."""

    def add(self, change: Arrays, deviation: float | None) -> None:
        """Take in one change and the standard deviation of the noise in it, if known."""

    def combined(self) -> tuple[Arrays, Variance | None]:
        """All changes as one, and the variance of the noise in it, if known."""


class _Round:
    """One round of a composed strategy."""

    def __init__(self, parts: Composed, state: Arrays, round_number: int) -> None:
        self._parts, self._state = parts, state
        self._inner = parts.strategy.begin(_without_parts(state), round_number)
        self._controls = {n: a for n, a in state.items() if n.startswith(CONTROLS)}
        between = parts.corrects and parts.correction is NoiseCorrection.BETWEEN
        self._gathering: _Gathering = _All(parts.rule) if parts.rule else _Mean(between)

    def add(self, update: Update) -> None:
        """Take in one hospital's change, weighed by its age."""
        if self._parts.scaffold is not None:
            hospital, change = update.hospital, update.change
            self._controls |= self._parts.scaffold.learn(self._state, hospital, change)
        share = (1 + update.age) ** -self._parts.staleness_power
        change = {name: share * array for name, array in update.change.items()}
        deviation = None if update.deviation is None else share * update.deviation
        self._gathering.add(change, deviation)

    def add_sum(self, total: Arrays, count: int) -> None:
        """Take in the sum of ``count`` hospitals' changes.

        Raises:
            TypeError: A robust rule wants to see them one by one.
        """
        if not isinstance(self._gathering, _Mean):
            raise TypeError("a robust rule looks at single updates, not at their sum")
        self._gathering.add_sum(total, count, None)

    def finish(self) -> State:
        """The strategy's next state, with what the parts keep beside it."""
        change, variance = self._gathering.combined()
        kept = {
            name.removeprefix(OPTIMIZER): array
            for name, array in self._state.items()
            if name.startswith(OPTIMIZER)
        }
        if self._parts.optimizer is not None:
            known = variance if self._parts.corrects else None
            if self._parts.corrects and known is None:
                raise ValueError("the noise in the changes is not known, so it cannot be taken out")
            change, kept = self._parts.optimizer.step(kept, change, known)
        self._inner.add(Update("", change))
        beside = {OPTIMIZER + name: array for name, array in kept.items()}
        return {**self._inner.finish(), **beside, **self._controls}


class _Mean:
    """The mean of the changes, of which only sums are kept.

    Late answers weigh less but the count stays whole, as in FedBuff: a round of late answers is a
    shorter step.
    """

    def __init__(self, between: bool) -> None:
        self._between = between
        self._count = 0
        self._sum: dict[str, Tensor] = {}
        self._squares: dict[str, float] = {}
        self._variance: float | None = 0.0

    def add(self, change: Arrays, deviation: float | None) -> None:
        """Add one change to the sums."""
        self.add_sum(change, 1, None if deviation is None else deviation**2)
        if self._between:
            for name, array in change.items():
                square = float(array.double().square().sum())
                self._squares[name] = self._squares.get(name, 0.0) + square

    def add_sum(self, total: Arrays, count: int, variance: float | None) -> None:
        """Add ``count`` changes at once, and the variance of the noise in their sum, if known."""
        for name, array in total.items():
            held = self._sum.get(name)
            self._sum[name] = array.double().clone() if held is None else held.add_(array)
        self._count += count
        if variance is None or self._variance is None:
            self._variance = None
        else:
            self._variance += variance

    def combined(self) -> tuple[Arrays, Variance | None]:
        """The mean and the variance of the noise in it."""
        if not self._count:
            raise ValueError("no update to aggregate")
        mean = {name: total / self._count for name, total in self._sum.items()}
        if self._between:
            return mean, self._variance_between(mean)
        if self._variance is None:
            return mean, None
        return mean, dict.fromkeys(mean, self._variance / self._count**2)

    def _variance_between(self, mean: Arrays) -> dict[str, float]:
        """Variance of a mean of ``n``: that of one change over n, estimated with ``n - 1``."""
        count = self._count
        if count < 2:
            raise TooFewAnswers("noise_correction 'between' compares 2 answers or more; 1 came")
        return {
            name: max(0.0, self._squares[name] - count * float(array.square().sum()))
            / ((count - 1) * count * array.numel())
            for name, array in mean.items()
        }


class _All:
    """Every change of the round, for a rule that looks at them together."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._changes: list[Arrays] = []
        self._deviations: list[float | None] = []

    def add(self, change: Arrays, deviation: float | None) -> None:
        """Keep one change."""
        self._changes.append(change)
        self._deviations.append(deviation)

    def combined(self) -> tuple[Arrays, Variance | None]:
        """What the rule makes of them, and the variance of the noise in it."""
        combination = self._rule.combine(self._changes)
        weights, known = combination.weights, [d for d in self._deviations if d is not None]
        if weights is None or len(known) < len(self._deviations):
            return combination.arrays, None
        deviations = torch.tensor(known, dtype=torch.float64)
        variance = float((weights * deviations).square().sum())
        return combination.arrays, dict.fromkeys(combination.arrays, variance)


def _without_parts(state: Arrays) -> State:
    """The part of the state that is the strategy's own."""
    return {n: array for n, array in state.items() if not n.startswith((OPTIMIZER, CONTROLS))}


def compose(strategy: Strategy, parts: Parts, hospitals: int, reach: float) -> Strategy:
    """``strategy`` with these parts; itself when none is exchanged.

    Args:
        strategy: One whose aggregate is the mean of changes.
        parts: From the ``[strategy]`` table, found compatible.
        hospitals: How many take part, for SCAFFOLD.
        reach: Steps a round times learning rate, for SCAFFOLD.
    """
    if parts.worst_hospital is not None:
        return WorstHospital(strategy, parts.worst_hospital)
    if not parts.exchanged:
        return strategy
    return Composed(
        strategy,
        _rule(parts),
        _optimizer(parts),
        parts.noise_correction,
        parts.staleness_power,
        Scaffold(hospitals, reach) if parts.scaffold else None,
    )


def _rule(parts: Parts) -> Rule | None:
    """The robust rule, set for so many malicious hospitals."""
    count = parts.malicious
    match parts.robust:
        case Robust.NONE:
            return None
        case Robust.NORM_BOUNDED_MEAN:
            return NormBoundedMean(count, parts.norm_bound)
        case Robust.MEDIAN:
            return Median(count)
        case Robust.TRIMMED_MEAN:
            return TrimmedMean(count)
        case Robust.GEOMETRIC_MEDIAN:
            return GeometricMedian(count)
        case Robust.KRUM:
            return Krum(count)
        case Robust.MULTI_KRUM:
            return MultiKrum(count)


def _optimizer(parts: Parts) -> ServerOptimizer | None:
    """The server optimiser, with its settings."""
    rate = parts.server_learning_rate
    betas = (parts.server_beta1, parts.server_beta2, parts.server_damping)
    match parts.server:
        case Server.NONE:
            return None
        case Server.MOMENTUM:
            return Momentum(1.0 if rate is None else rate, parts.server_momentum)
        case Server.ADAM:
            return Adam(0.01 if rate is None else rate, *betas)
        case Server.YOGI:
            return Yogi(0.01 if rate is None else rate, *betas)
