"""How bases that answer are taught: AdamW on the answers' tokens, warm-up and linear decay.

Nothing is private: rows are made up or public.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from wardround.client.tasks.rows import Row, pad


@dataclass(frozen=True)
class Course:
    """How long and how fast a base is taught.

    Attributes:
        steps: Optimizer steps.
        batch: Rows a step.
        learning_rate: At its highest.
        warm_up_steps: In which it rises.
    """

    steps: int
    batch: int
    learning_rate: float = 3e-3
    warm_up_steps: int = 30


def teach(
    course: Course,
    model: nn.Module,
    rows: Sequence[Row],
    filler: int,
    generator: torch.Generator,
    tell: Callable[[str], None],
) -> float:
    """Teach ``model`` rows in random order, in place; returns the last hundred steps' mean loss."""
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
    model.train()
    recent: list[float] = []
    for step in range(course.steps):
        chosen = torch.randint(len(rows), (course.batch,), generator=generator).tolist()
        inputs = pad([rows[place] for place in chosen], filler)
        warm = min(1.0, (step + 1) / course.warm_up_steps)
        optimizer.param_groups[0]["lr"] = course.learning_rate * warm * (1 - step / course.steps)
        logits = model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
        ).logits
        loss = functional.cross_entropy(
            logits[:, :-1].transpose(1, 2), inputs["labels"][:, 1:], ignore_index=-100
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        recent = [*recent[-99:], loss.item()]
        if (step + 1) % 100 == 0:
            tell(f"step {step + 1} of {course.steps}, loss {sum(recent) / len(recent):.3f}")
    model.eval()
    return sum(recent) / len(recent)
