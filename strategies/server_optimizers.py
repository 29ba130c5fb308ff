"""Server optimisers: the round's combined change as a gradient of its own.

What hospitals send is noised, so everything here is post-processing and costs no privacy. But the
noise of variance ``s²`` in a change adds ``s²`` to its square, and an optimiser that divides by the
root of a mean square then divides by the noise: FedAdam's steps all but lose their adaptivity. So
the noise's variance, which the plan fixes, is taken out of the square before it is averaged.

What is left is an estimate that may fall below zero by chance; it is never taken for less than one
standard deviation of what noise alone would show. Yogi follows signs, not means, so the correction
takes out only part of the noise there. Sources: Hsu, Qi and Brown (2019) for momentum;
Reddi et al. (2021), "Adaptive federated optimization", algorithm 2; Tang, Shpilevskiy and Lécuyer
(2024), "DP-AdamBC", for the correction (theirs has a fixed floor).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from wardround.strategies.base import Arrays

State = Mapping[str, Tensor]
Variance = Mapping[str, float]


class ServerOptimizer(Protocol):
    """Turns a round's change into the step that is taken, and remembers what it needs."""

    name: ClassVar[str]
    squares: ClassVar[bool]  # whether it looks at squares, where noise does not average out

    def step(
        self, state: State, change: Arrays, variance: Variance | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The step for every array of ``change``, and the state after it.

        Args:
            state: What the last call returned; empty at first. Arrays that ``change`` leaves out
                keep theirs.
            change: The combined change of this round.
            variance: Of the noise in each array of ``change``, or None to leave squares alone.

        Returns:
            The step in float64, to be added to the model; the state in float32, by flat names.
        """


@dataclass(frozen=True)
class Momentum:
    """FedAvgM: past changes go on being added, each time ``momentum`` times as much.

    Attributes:
        learning_rate: Of the server.
        momentum: In [0, 1).
    """

    learning_rate: float = 1.0
    momentum: float = 0.9
    name: ClassVar[str] = "momentum"
    squares: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_rate(self.learning_rate)
        _check_decay("momentum", self.momentum)

    def step(
        self, state: State, change: Arrays, variance: Variance | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """``v = momentum v + change``; the step is ``learning_rate v``."""
        step, after = {}, dict(state)
        for name, array in change.items():
            velocity = array.double()
            if f"momentum/{name}" in state:
                velocity = self.momentum * state[f"momentum/{name}"].double() + velocity
            after[f"momentum/{name}"] = velocity.float()
            step[name] = self.learning_rate * velocity
        return step, after


@dataclass(frozen=True)
class Adam:
    """FedAdam: a mean of changes over the root of a mean of squares, both corrected for the start.

    Attributes:
        learning_rate: Of the server; about the size of a step in every number.
        beta1: Decay of the mean of changes.
        beta2: Decay of the mean of squares.
        damping: Added to the root (the paper's tau).
    """

    learning_rate: float = 1e-2
    beta1: float = 0.9
    beta2: float = 0.99
    damping: float = 1e-3
    name: ClassVar[str] = "adam"
    squares: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_adaptive(self.learning_rate, self.beta1, self.beta2, self.damping)

    def step(
        self, state: State, change: Arrays, variance: Variance | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """One step of Adam with the noise taken out of the squares."""
        step, after = {}, dict(state)
        for name, array in change.items():
            before = _Moments.read(state, name, array)
            square, noise = _unbiased_square(array, name, variance)
            second = self.beta2 * before.second + (1 - self.beta2) * square
            moments = before.next(array, second, noise, self.beta1, self.beta2)
            start = math.sqrt(1 - self.beta2**moments.steps) / (1 - self.beta1**moments.steps)
            step[name] = self.learning_rate * start * moments.direction(self.damping)
            after |= moments.write(name)
        return step, after


@dataclass(frozen=True)
class Yogi:
    """FedYogi: the squares move by a bounded amount, so they fall no faster than they rise.

    Attributes:
        learning_rate: Of the server.
        beta1: Decay of the mean of changes.
        beta2: How slowly the squares move.
        damping: Added to the root (the paper's tau).
    """

    learning_rate: float = 1e-2
    beta1: float = 0.9
    beta2: float = 0.99
    damping: float = 1e-3
    name: ClassVar[str] = "yogi"
    squares: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_adaptive(self.learning_rate, self.beta1, self.beta2, self.damping)

    def step(
        self, state: State, change: Arrays, variance: Variance | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """One step of Yogi with the noise taken out of the squares."""
        step, after = {}, dict(state)
        for name, array in change.items():
            before = _Moments.read(state, name, array)
            square, noise = _unbiased_square(array, name, variance)
            toward = (square - before.second).sign() * square.abs()
            second = (before.second + (1 - self.beta2) * toward).clamp(min=0)
            moments = before.next(array, second, noise, self.beta1, self.beta2)
            step[name] = self.learning_rate * moments.direction(self.damping)
            after |= moments.write(name)
        return step, after


@dataclass(frozen=True)
class _Moments:
    """What an adaptive optimiser remembers of one array.

    Attributes:
        first: Running mean of changes, float64.
        second: Running mean of squares without the noise's share, float64.
        steps: How many changes went in.
        deviation: Standard deviation of ``second`` if every change were noise alone.
    """

    first: Tensor
    second: Tensor
    steps: int
    deviation: float

    @classmethod
    def read(cls, state: State, name: str, like: Tensor) -> _Moments:
        """As ``write`` left them; zero at first."""
        if f"first/{name}" not in state:
            zero = torch.zeros_like(like, dtype=torch.float64)
            return cls(zero, zero, 0, 0.0)
        steps, deviation = state[f"noise/{name}"].tolist()
        first, second = state[f"first/{name}"], state[f"second/{name}"]
        return cls(first.double(), second.double(), int(steps), deviation)

    def next(
        self, change: Tensor, second: Tensor, noise: float, beta1: float, beta2: float
    ) -> _Moments:
        """With one more change; a square of noise of variance ``s²`` has variance ``2 s⁴``."""
        first = beta1 * self.first + (1 - beta1) * change.double()
        deviation = math.hypot(beta2 * self.deviation, (1 - beta2) * math.sqrt(2) * noise)
        return _Moments(first, second, self.steps + 1, deviation)

    def direction(self, damping: float) -> Tensor:
        """First moment over the root of the second, which counts as no less than its error."""
        return self.first / (self.second.clamp(min=self.deviation).sqrt() + damping)

    def write(self, name: str) -> dict[str, Tensor]:
        """As arrays of a state."""
        return {
            f"first/{name}": self.first.float(),
            f"second/{name}": self.second.float(),
            f"noise/{name}": torch.tensor([float(self.steps), self.deviation]),
        }


def _unbiased_square(array: Tensor, name: str, variance: Variance | None) -> tuple[Tensor, float]:
    """The square of the change without noise, on average; and the noise's variance."""
    noise = 0.0 if variance is None else variance[name]
    return array.double().square() - noise, noise


def _check_rate(learning_rate: float) -> None:
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate is {learning_rate}; it must be greater than 0")


def _check_decay(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise ValueError(f"{name} is {value}; it must lie in [0, 1)")


def _check_adaptive(learning_rate: float, beta1: float, beta2: float, damping: float) -> None:
    _check_rate(learning_rate)
    _check_decay("beta1", beta1)
    _check_decay("beta2", beta2)
    if not 0 < damping < math.inf:
        raise ValueError(f"damping is {damping}; it must be greater than 0")
