"""Many tiny LoRA models trained side by side in one tensor, for attacks that need a crowd.

Each model is a frozen linear head plus a trainable B A on fixed features, trained with full-batch
DP-SGD: per-unit gradients, one joint clip by ``privacy.clipping``, noise, step. Small enough that
a hundred of them train in seconds, and the clipping under attack is the real one. For experiments
on made-up numbers only: noise comes from the generator passed in, which anybody could replay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from wardround.privacy.clipping import clip_factors
from wardround.privacy.limits import gaussian_mu


@dataclass(frozen=True)
class Mechanism:
    """What stands between records and model.

    Attributes:
        clip_norm: Longest joint L2 norm a unit may contribute; infinite for no clipping.
        noise_multiplier: Noise deviation in units of ``clip_norm``; 0 for none.
    """

    clip_norm: float = math.inf
    noise_multiplier: float = 0.0

    def __post_init__(self) -> None:
        if not self.clip_norm > 0:
            raise ValueError(f"clip_norm is {self.clip_norm}; it must be greater than 0")
        if not 0 <= self.noise_multiplier < math.inf:
            raise ValueError(
                f"noise_multiplier is {self.noise_multiplier}; it must be finite and 0 or more"
            )
        if self.noise_multiplier > 0 and math.isinf(self.clip_norm):
            raise ValueError("noise_multiplier needs a finite clip_norm to be a multiple of")

    def mu(self, steps: int, copies: int = 1) -> float:
        """What an attacker can see of ``copies`` equal units, in deviations; see ``limits``."""
        return gaussian_mu(self.noise_multiplier, steps, copies)


@dataclass(frozen=True)
class Training:
    """How the tiny models train.

    Attributes:
        steps: Gradient steps, every unit in each of them.
        learning_rate: Of plain gradient descent on the mean gradient.
        rank: Of B A.
        scale: B A is multiplied by it.
    """

    steps: int = 40
    learning_rate: float = 0.5
    rank: int = 8
    scale: float = 2.0

    def __post_init__(self) -> None:
        for name in ("steps", "learning_rate", "rank", "scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be greater than 0")


@dataclass(frozen=True)
class Examples:
    """What the models see; a unit is one or more rows that are clipped together.

    Attributes:
        features: Shape ``(models, units, rows, width)``; a first axis of 1 serves all models.
        labels: Shape ``(models, units, rows)``, int64.
        copies: Shape ``(models, units)``: how many equal units there are, 0 for left out.
        classes: How many labels there are.
        denominator: What sums of gradients are divided by; public, so not the count of members.
    """

    features: Tensor
    labels: Tensor
    copies: Tensor
    classes: int
    denominator: float

    def __post_init__(self) -> None:
        models, units = self.copies.shape
        rows = self.features.shape[2]
        if self.features.shape[:2] not in ((models, units), (1, units)):
            raise ValueError(f"features have shape {tuple(self.features.shape)}")
        if self.labels.shape not in ((models, units, rows), (1, units, rows)):
            raise ValueError(f"labels have shape {tuple(self.labels.shape)}")


@dataclass(frozen=True)
class Heads:
    """Trained adapters: ``up`` is B, shape ``(models, classes, rank)``, ``down`` is A."""

    down: Tensor
    up: Tensor
    scale: float

    def log_probabilities(self, features: Tensor) -> Tensor:
        """Of every class, shape ``(models, units, rows, classes)``."""
        hidden = torch.einsum("murd,mkd->murk", *_shared(features, self.down))
        logits = torch.einsum("murk,mck->murc", hidden, self.up) * self.scale
        return logits.log_softmax(-1)


def train_heads(
    examples: Examples, training: Training, mechanism: Mechanism, generator: torch.Generator
) -> Heads:
    """All models after full-batch training from B = 0; the frozen head is zero.

    Privacy: by construction each model is ``mechanism.mu(steps)``-Gaussian-private to one unit
    added or removed, as far as ``generator`` is secret.
    """
    models, units = examples.copies.shape
    width = examples.features.shape[-1]
    # One public start for all models: an attacker knows it too.
    down = torch.randn((training.rank, width), generator=generator) / math.sqrt(width)
    down = down.expand(models, -1, -1)
    up = torch.zeros(models, examples.classes, training.rank)
    for _ in range(training.steps):
        heads = Heads(down, up, training.scale)
        slopes = _per_unit(examples, heads)
        flat = {name: slope.flatten(0, 1) for name, slope in slopes.items()}
        weight = clip_factors(flat, mechanism.clip_norm).view(models, units) * examples.copies
        step = training.learning_rate / examples.denominator
        down = down - step * _noised_sum(slopes["down"], weight, mechanism, generator)
        up = up - step * _noised_sum(slopes["up"], weight, mechanism, generator)
    return Heads(down, up, training.scale)


def _per_unit(examples: Examples, heads: Heads) -> dict[str, Tensor]:
    """Gradient of each unit's summed cross-entropy, shapes ``(models, units, *factor)``."""
    features, down = _shared(examples.features, heads.down)
    hidden = torch.einsum("murd,mkd->murk", features, down)
    logits = torch.einsum("murk,mck->murc", hidden, heads.up) * heads.scale
    true = torch.nn.functional.one_hot(examples.labels, examples.classes)
    error = (logits.softmax(-1) - true) * heads.scale
    pulled = torch.einsum("murc,mck->murk", error, heads.up)
    return {
        "up": torch.einsum("murc,murk->muck", error, hidden),
        "down": torch.einsum("murk,murd->mukd", pulled, features),
    }


def _noised_sum(
    slopes: Tensor, weight: Tensor, mechanism: Mechanism, generator: torch.Generator
) -> Tensor:
    """The weighted sum over units plus noise, shape ``(models, *factor)``."""
    total = torch.einsum("muab,mu->mab", slopes, weight.to(slopes.dtype))
    if mechanism.noise_multiplier == 0:
        return total
    noise = torch.randn(total.shape, generator=generator)
    return total + mechanism.noise_multiplier * mechanism.clip_norm * noise


def _shared(features: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """Features and factor with as many models each."""
    return features.expand(len(factor), -1, -1, -1), factor
