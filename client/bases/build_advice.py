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

from wardround.client.bases.making import (
    MAX_LENGTH,
    Shape,
    byte_level_tokenizer,
    new_llama,
    save_base,
)
from wardround.client.bases.teaching import Course, teach
from wardround.client.tasks.preference.advice import corpus
from wardround.client.tasks.rows import encode


@dataclass(frozen=True)
class AdviceRecipe:
    """How the advice base is made; the defaults are the shipped one."""

    name: str = "advice"
    shape: Shape = field(default_factory=lambda: Shape(hidden=80, layers=4, heads=4, mlp=208))
    vocabulary: int = 420
    answers: int = 8000
    course: Course = field(default_factory=lambda: Course(steps=700, batch=48))
    seed: int = 0


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
    loss = teach(recipe.course, model, rows, tokenizer.pad_token_id, generator, tell)
    facts = {
        "made_by": "python -m wardround.client.bases.build_advice",
        "answers": recipe.answers,
        "steps": recipe.course.steps,
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
