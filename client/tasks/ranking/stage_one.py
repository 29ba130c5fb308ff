"""Stage 1: continual pre-training on public weak pairs, at the coordinator; costs no privacy.

The model learns to say the query once it has read the passage, query tokens alone:
``L = -1/n sum_i log p(q_i | prompt(d), q_<i)`` over the n query tokens of a batch. What comes out
is the base of the federated stage and the reference of its difference penalty. Source: Zhang et al.
(2024), TSARankLLM, section 3.2 and released ``pretrain.py``: AdamW, one epoch, cosine after a
warm-up of 10 %. Knows nothing of hospitals; every row it is given must be public.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from wardround.client.tasks.ranking.likelihood import query_logits
from wardround.client.tasks.ranking.rows import IGNORED, Row, pad


@dataclass(frozen=True)
class StageOne:
    """How stage 1 runs; the published settings are 5e-5 and 256 pairs a step, on large models.

    Attributes:
        steps: Optimizer steps.
        learning_rate: At its highest.
        batch: Pairs a step.
        warm_up: Share of the steps in which the rate rises.
        weight_decay: AdamW's.
        max_grad_norm: Longer gradients of a whole batch are shortened.
    """

    steps: int
    learning_rate: float = 5e-5
    batch: int = 64
    warm_up: float = 0.1
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        for name in ("steps", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if not 0 < self.learning_rate < 1:
            raise ValueError(f"learning_rate is {self.learning_rate}; expected between 0 and 1")
        if not 0 <= self.warm_up < 1:
            raise ValueError(f"warm_up is {self.warm_up}; it must lie in [0, 1)")

    def rate(self, step: int) -> float:
        """The learning rate of a step counted from 0: a linear rise, then a half cosine to 0.

        >>> settings = StageOne(steps=100, learning_rate=0.1)
        >>> settings.rate(9), round(settings.rate(55), 3)
        (0.1, 0.05)
        """
        rising = max(1, round(self.warm_up * self.steps))
        if step < rising:
            return self.learning_rate * (step + 1) / rising
        done = (step - rising) / max(1, self.steps - rising)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def pretrain(
    model: nn.Module,
    rows: Sequence[Row],
    settings: StageOne,
    filler: int,
    generator: torch.Generator,
    tell: Callable[[str], None] = lambda line: None,
) -> None:
    """Train every parameter of ``model`` that requires a gradient on public rows, in place.

    Args:
        model: Left in evaluation mode.
        rows: Prompt and query each; public.
        settings: Steps, rate, batch.
        filler: The padding token.
        generator: Public; the order of the rows, epoch after epoch.
        tell: Told the loss every 50 steps.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, weight_decay=settings.weight_decay)
    model.train()
    order: list[int] = []
    for step in range(settings.steps):
        if len(order) < settings.batch:
            order = torch.randperm(len(rows), generator=generator).tolist()
        chosen, order = order[: settings.batch], order[settings.batch :]
        inputs = pad([rows[i] for i in chosen], filler)
        logits = query_logits(model, inputs)
        loss = functional.cross_entropy(
            logits.flatten(0, 1), inputs["labels"].flatten(), ignore_index=IGNORED
        )
        optimizer.param_groups[0]["lr"] = settings.rate(step)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
        optimizer.step()
        if (step + 1) % 50 == 0:
            tell(f"step {step + 1} of {settings.steps}, loss {loss.item():.3f}")
    model.eval()
