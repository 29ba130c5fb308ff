"""Train the embedded advice base again, from the generated world of advice alone.

``python -m wardround.client.bases.build_advice`` (or ``make bases``) writes
``client/bases/advice``: a Llama of about a third of a million parameters whose answers have known
habits, for preference tuning to change. Nothing is private.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from wardround.client.bases.making import (
    MAX_LENGTH,
    Shape,
    byte_level_tokenizer,
    new_llama,
    save_base,
)
from wardround.client.tasks.preference.advice import corpus
from wardround.client.tasks.rows import Row, encode, pad


@dataclass(frozen=True)
class AdviceRecipe:
    """How the advice base is made; the defaults are the shipped one."""

    name: str = "advice"
    shape: Shape = field(default_factory=lambda: Shape(hidden=80, layers=4, heads=4, mlp=208))
    vocabulary: int = 420
    answers: int = 8000
    steps: int = 700
    batch: int = 48
    learning_rate: float = 3e-3
    warm_up_steps: int = 30
    seed: int = 0


def train(
    recipe: AdviceRecipe, model: nn.Module, rows: list[Row], filler: int,
    generator: torch.Generator, tell: Callable[[str], None],
) -> float:  # fmt: skip
    """AdamW on the answers' tokens, warm-up and linear decay; returns the last hundred's loss."""
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
    model.train()
    recent: list[float] = []
    for step in range(recipe.steps):
        chosen = torch.randint(len(rows), (recipe.batch,), generator=generator).tolist()
        inputs = pad([rows[place] for place in chosen], filler)
        warm = min(1.0, (step + 1) / recipe.warm_up_steps)
        optimizer.param_groups[0]["lr"] = recipe.learning_rate * warm * (1 - step / recipe.steps)
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
            tell(f"step {step + 1} of {recipe.steps}, loss {sum(recent) / len(recent):.3f}")
    model.eval()
    return sum(recent) / len(recent)


def build(recipe: AdviceRecipe, bases: Path, tell: Callable[[str], None]) -> dict[str, Any]:
    """Make the base and put it into ``bases/<name>``; returns its manifest."""
    began = time.monotonic()
    generator = torch.Generator().manual_seed(recipe.seed)
    texts = corpus(recipe.answers, recipe.seed)
    tokenizer = byte_level_tokenizer(
        (f"{asked} {said}" for asked, said in texts), recipe.vocabulary
    )
    model = new_llama(recipe.shape, tokenizer, generator)
    rows = [encode(tokenizer, asked, said, MAX_LENGTH) for asked, said in texts]
    loss = train(recipe, model, rows, tokenizer.pad_token_id, generator, tell)
    facts = {
        "made_by": "python -m wardround.client.bases.build_advice",
        "answers": recipe.answers,
        "steps": recipe.steps,
        "loss": round(loss, 4),
        "seconds": round(time.monotonic() - began, 1),
    }
    return save_base(model, tokenizer, bases / recipe.name, facts)


def main() -> None:
    """Build the shipped base where it is shipped from."""

    def tell(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    tell(json.dumps(build(AdviceRecipe(), Path(__file__).parent, tell), indent=2))


if __name__ == "__main__":
    main()
