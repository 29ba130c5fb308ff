"""Optimizers: how a noised mean gradient moves the trainable values.

SGD, Adam (Kingma and Ba 2015, algorithm 1) and AdamW (Loshchilov and Hutter 2019, algorithm 2).
Adam divides by the root of the second moment, and noise adds its own variance to that: where noise
is stronger than the gradient, Adam is SGD in disguise. Subtracting the variance, a public number,
undoes it (Tang, Shpilevskiy and Lecuyer 2023, "DP-AdamBC", algorithm 1). All of this is
post-processing of noised gradients. Knows nothing of plans, models or data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor, nn

Arrays = Mapping[str, Tensor]

FIRST, SECOND = "first/", "second/"  # what the moments' names begin with


class Optimizer(StrEnum):
    """How a noised mean gradient moves the parameters."""

    ADAM = "adam"
    ADAMW = "adamw"
    SGD = "sgd"


@dataclass(frozen=True)
class OptimizerConfig:
    """How noised gradients become steps; post-processing, so nothing here costs privacy.

    Attributes:
        learning_rate: Step size.
        optimizer: Which one.
        beta1: Adam's decay of the first moment.
        beta2: Adam's decay of the second moment.
        damping: Added to Adam's denominator; with the bias correction, the least it can be. Far
            above the usual 1e-8, because an Adam that is restarted every round would blow gradients
            that are nearly zero up to full steps.
        momentum: SGD's momentum.
        weight_decay: Pull towards zero; part of the gradient, or beside it for AdamW.
        dp_bias_correction: Take the noise's variance out of Adam's second moment.
    """

    learning_rate: float
    optimizer: Optimizer = Optimizer.ADAM
    beta1: float = 0.9
    beta2: float = 0.99
    damping: float = 3e-4
    momentum: float = 0.0
    weight_decay: float = 0.0
    dp_bias_correction: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be greater than 0")
        for name in ("beta1", "beta2", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie in [0, 1)")
        if not 0 < self.damping < float("inf"):
            raise ValueError(f"damping is {self.damping}; it must be greater than 0")
        if not 0 <= self.weight_decay < float("inf"):
            raise ValueError(f"weight_decay is {self.weight_decay}; it must be 0 or more")
        if self.dp_bias_correction and self.optimizer == Optimizer.SGD:
            raise ValueError("dp_bias_correction is for adam and adamw; sgd has no second moment")


@dataclass(frozen=True)
class Moments:
    """What an optimizer remembers of each parameter.

    Attributes:
        arrays: Running means of gradients (``first/`` and the parameter's name) and, for Adam, of
            their squares (``second/``); float32.
        steps: How many steps they are over, by parameter.
        noise_variance: Running mean of the noise's variance, with the second moment's weights.
    """

    arrays: Arrays
    steps: Mapping[str, int]
    noise_variance: Mapping[str, float]


@dataclass
class _State:
    """One parameter's exact value and moments, float32, where the parameter is."""

    value: Tensor
    first: Tensor
    second: Tensor
    steps: int = 0
    noise_variance: float = 0.0


class Descent:
    """An optimizer at work on named parameters.

    The float32 values in here are what counts and the parameters are copies of them, so that steps
    too small for a shorter type add up all the same. Each parameter has its own count of steps: one
    that does not move in a step is left alone by it.
    """

    def __init__(
        self,
        config: OptimizerConfig,
        parameters: Mapping[str, nn.Parameter],
        moments: Moments | None = None,
    ) -> None:
        """Start from the parameters' values, and from what ``moments`` says of those of theirs.

        Moments of other parameters are carried along unused; those of another shape are dropped.
        """
        self._config = config
        self._parameters = dict(parameters)
        self._earlier = moments or Moments({}, {}, {})
        self._states = {name: self._start(name) for name in parameters}

    @torch.no_grad()
    def step(self, gradient: Arrays, factor: float, noise_deviation: float) -> dict[str, Tensor]:
        """Move what ``gradient`` names; all values after it, float32 on the CPU.

        Args:
            gradient: By wire name; parameters it does not name stay.
            factor: What the schedule makes of the learning rate.
            noise_deviation: Standard deviation of the noise on each number of ``gradient``.
        """
        rate = self._config.learning_rate * factor
        for name, array in gradient.items():
            state = self._states[name]
            slope = array.to(state.value)
            if self._config.weight_decay:
                slope = self._decayed(state, slope, rate)
            state.steps += 1
            if self._config.optimizer == Optimizer.SGD:
                state.first.mul_(self._config.momentum).add_(slope)
                state.value.sub_(state.first, alpha=rate)
            else:
                self._adam(state, slope, rate, noise_deviation)
            self._parameters[name].copy_(state.value)
        return {name: s.value.to("cpu", copy=True) for name, s in self._states.items()}

    def moments(self) -> Moments:
        """What a later round needs to go on."""
        arrays = dict(self._earlier.arrays)
        for name, state in self._states.items():
            arrays[FIRST + name] = state.first.cpu()
            if self._config.optimizer != Optimizer.SGD:
                arrays[SECOND + name] = state.second.cpu()
        steps = {name: state.steps for name, state in self._states.items()}
        variances = {name: state.noise_variance for name, state in self._states.items()}
        return Moments(
            arrays, {**self._earlier.steps, **steps}, {**self._earlier.noise_variance, **variances}
        )

    def _start(self, name: str) -> _State:
        """A parameter's state, from earlier moments where there are some of its shape."""
        value = self._parameters[name].detach().to(torch.float32, copy=True)
        state = _State(value, torch.zeros_like(value), torch.zeros_like(value))
        kept = self._earlier.arrays
        first, second = kept.get(FIRST + name), kept.get(SECOND + name)
        adam = self._config.optimizer != Optimizer.SGD
        if first is None or first.shape != value.shape or (adam and second is None):
            return state
        state.first = first.to(value, copy=True)
        if second is not None:
            state.second = second.to(value, copy=True)
        state.steps = self._earlier.steps[name]
        state.noise_variance = self._earlier.noise_variance[name]
        return state

    def _decayed(self, state: _State, slope: Tensor, rate: float) -> Tensor:
        """The gradient with weight decay in it; AdamW decays the value itself instead."""
        decay = self._config.weight_decay
        if self._config.optimizer == Optimizer.ADAMW:
            state.value.mul_(1 - rate * decay)
            return slope
        return slope.add(state.value, alpha=decay)

    def _adam(self, state: _State, slope: Tensor, rate: float, noise_deviation: float) -> None:
        """One step of Adam's, once weight decay is dealt with."""
        config = self._config
        state.first.lerp_(slope, 1 - config.beta1)
        state.second.mul_(config.beta2).addcmul_(slope, slope, value=1 - config.beta2)
        fresh = (1 - config.beta2) * noise_deviation**2
        state.noise_variance = config.beta2 * state.noise_variance + fresh
        started = 1 - config.beta2**state.steps
        second = state.second / started
        if config.dp_bias_correction:
            second.sub_(state.noise_variance / started).clamp_(min=config.damping**2)
            scale = second.sqrt_()
        else:
            scale = second.sqrt_().add_(config.damping)
        state.value.addcdiv_(state.first, scale, value=-rate / (1 - config.beta1**state.steps))
