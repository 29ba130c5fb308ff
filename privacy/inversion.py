"""Gradient inversion by span test: which words were in the batch whose gradient was sent?

The gradient of a linear layer's weight is a sum of (slope) x (input), so its rows lie in the span
of the inputs: whoever knows the embedding table tests every word for lying in that span. With LoRA
the gradient of B shows the inputs through A, in as many dimensions as the rank; the gradient of A
shows them whole, once B is no longer zero. Source: Petrov et al. (2024), "DAGER: exact gradient
inversion for large language models", section 4.1, reduced to one layer and no order of words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from wardround.privacy.limits import most_true_positives
from wardround.privacy.shadows import Mechanism


class Factor(StrEnum):
    """Which LoRA factor's gradient was seen."""

    B = "B"  # outputs x rank
    A = "A"  # rank x inputs


@dataclass(frozen=True)
class InversionSetup:
    """One layer, one batch.

    Attributes:
        factor: Whose gradient is attacked.
        rank: Of the LoRA layer.
        tokens: Different words in the batch; the attacker knows how many, not which.
        vocabulary: Words in the embedding table.
        width: Length of an embedding.
        outputs: Of the layer.
        batches: Independent repetitions, for a standard error.
    """

    factor: Factor = Factor.B
    rank: int = 8
    tokens: int = 6
    vocabulary: int = 500
    width: int = 64
    outputs: int = 64
    batches: int = 40

    def __post_init__(self) -> None:
        for name, least in (("rank", 1), ("width", 1), ("outputs", 1), ("batches", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {least} or more")
        if not 1 <= self.tokens < self.vocabulary:
            raise ValueError(
                f"tokens is {self.tokens}; it must lie between 1 and vocabulary, "
                f"{self.vocabulary}, less one"
            )

    @property
    def chance(self) -> float:
        """Recall of guessing."""
        return self.tokens / self.vocabulary


@dataclass(frozen=True)
class InversionResult:
    """How many of the batch's words were named.

    Attributes:
        setup: Layer and batch.
        mechanism: What was done to the one gradient; the whole batch counts as one unit.
        recall: Share of the words among as many guesses.
        recall_error: Its standard error over batches.
        recall_limit: The highest any attack with as many guesses could reach on average.
    """

    setup: InversionSetup
    mechanism: Mechanism
    recall: float
    recall_error: float
    recall_limit: float


def attack_gradient(
    setup: InversionSetup, mechanism: Mechanism, generator: torch.Generator
) -> InversionResult:
    """Make random batches, send one gradient of each, name its words."""
    recalls = torch.tensor([_one_batch(setup, mechanism, generator) for _ in range(setup.batches)])
    return InversionResult(
        setup=setup,
        mechanism=mechanism,
        recall=float(recalls.mean()),
        recall_error=float(recalls.std()) / math.sqrt(setup.batches),
        recall_limit=most_true_positives(setup.chance, mechanism.mu(steps=1)),
    )


def words_in_span(gradient: Tensor, seen: Tensor, tokens: int) -> Tensor:
    """The words whose direction is nearest to the gradient's row space.

    Args:
        gradient: Shape ``(any, dimensions)``: each row a mixture of the inputs.
        seen: Shape ``(vocabulary, dimensions)``: how each word would look as an input.
        tokens: How many words to name, and at most how many directions to trust.

    Returns:
        Shape ``(tokens,)``, int64.
    """
    directions: Tensor = torch.linalg.svd(gradient, full_matrices=False).Vh
    trusted = directions[:tokens]
    unit = seen / seen.norm(dim=1, keepdim=True)
    inside: Tensor = (unit @ trusted.T).norm(dim=1)
    return inside.argsort(descending=True)[:tokens]


def _one_batch(setup: InversionSetup, mechanism: Mechanism, generator: torch.Generator) -> float:
    """Recall on one random batch."""
    table = torch.randn((setup.vocabulary, setup.width), generator=generator)
    down = torch.randn((setup.rank, setup.width), generator=generator) / math.sqrt(setup.width)
    up = torch.randn((setup.outputs, setup.rank), generator=generator) / 10
    words = torch.randperm(setup.vocabulary, generator=generator)[: setup.tokens]
    slopes = torch.randn((setup.tokens, setup.outputs), generator=generator)
    if setup.factor is Factor.B:
        seen, gradient = table @ down.T, slopes.T @ table[words] @ down.T
    else:
        seen, gradient = table, (slopes @ up).T @ table[words]
    gradient = gradient * min(1.0, mechanism.clip_norm / float(gradient.norm()))
    if mechanism.noise_multiplier:
        noise = torch.randn(gradient.shape, generator=generator)
        gradient = gradient + mechanism.noise_multiplier * mechanism.clip_norm * noise
    named = words_in_span(gradient, seen, setup.tokens)
    return float(torch.isin(words, named).double().mean())
