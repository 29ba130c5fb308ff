"""Train the embedded base of instruction tuning again, from generated public tasks alone.

``python -m wardround.client.bases.build_orders`` (or ``make bases``) writes
``client/bases/orders``: a Llama that reads medication orders and writes the fields that public
instructions ask for. It has seen all templates, each as often, with verdicts drawn by coin: it
can say a verdict and knows nothing of when it is right. Nothing is private.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from wardround.client.bases.making import Shape, byte_level_tokenizer, new_llama, save_base
from wardround.client.bases.teaching import Course, teach
from wardround.client.tasks.pacit.choosing import ExemplarSettings, Verdicts, choose
from wardround.client.tasks.pacit.generated import public_instances
from wardround.client.tasks.pacit.rows import encode_row
from wardround.client.tasks.pacit.templates import Style, closed, prompt, verdict
from wardround.client.tasks.rows import Row

MAX_LENGTH = 256


@dataclass(frozen=True)
class OrdersRecipe:
    """How the base is made; the defaults are the shipped one.

    Attributes:
        name: Folder.
        shape: How large it is.
        vocabulary: Of its tokenizer.
        instances: Of public tasks.
        reading: The first course, on prompts without exemplars: to find a field and copy it.
        prompts: The second, on all templates by turns.
        seed: Public.
    """

    name: str = "orders"
    shape: Shape = field(default_factory=lambda: Shape(hidden=96, layers=3, heads=4, mlp=256))
    vocabulary: int = 480
    instances: int = 12000
    reading: Course = field(default_factory=lambda: Course(steps=650, batch=64))
    prompts: Course = field(default_factory=lambda: Course(steps=600, batch=32, learning_rate=2e-3))
    seed: int = 0


def texts(recipe: OrdersRecipe) -> list[tuple[str, str, str]]:
    """Prompts in the three templates by turns, verdicts where the template has one, and answers."""
    found, styles = [], list(Style)
    settings = ExemplarSettings(verdicts=Verdicts.RANDOM)
    for place, instance in enumerate(public_instances(recipe.instances, recipe.seed)):
        style = styles[place // len(styles) % len(styles)]
        shown = choose(str(place), instance, settings, MAX_LENGTH, lambda text: 0)
        if style is Style.ICIT:
            shown = tuple(replace(one, said=one.right) for one in shown)
        asked = prompt(
            style,
            instance.task.definition,
            () if style is Style.ZERO_SHOT else shown,
            instance.input,
        )
        said = verdict([one.said for one in shown]) if style is Style.PACIT else ""
        found.append((asked, said, closed(instance.outputs[0])))
    return found


def build(recipe: OrdersRecipe, bases: Path, tell: Callable[[str], None]) -> dict[str, Any]:
    """Make the base and put it into ``bases/<name>``; returns its manifest."""
    began = time.monotonic()
    generator = torch.Generator().manual_seed(recipe.seed)
    spoken = texts(recipe)
    tokenizer = byte_level_tokenizer(map("".join, spoken[:3000]), recipe.vocabulary)
    model = new_llama(recipe.shape, tokenizer, generator)
    loss = 0.0
    for course, few_shot in ((recipe.reading, False), (recipe.prompts, True)):
        rows = _rows([one for one in spoken if few_shot or " Example" not in one[0]], tokenizer)
        loss = teach(course, model, rows, tokenizer.pad_token_id, generator, tell)
    facts = {
        "made_by": "python -m wardround.client.bases.build_orders",
        "instances": recipe.instances,
        "steps": {"reading": recipe.reading.steps, "prompts": recipe.prompts.steps},
        "loss": round(loss, 4),
        "seconds": round(time.monotonic() - began, 1),
    }
    return save_base(model, tokenizer, bases / recipe.name, facts)


def _rows(spoken: Sequence[tuple[str, str, str]], tokenizer: Any) -> list[Row]:
    """Prompts, verdicts and answers as a study would encode them."""
    encoded = (encode_row(tokenizer, *one, MAX_LENGTH) for one in spoken)
    return [(row.ids, row.start) for row in encoded]


def main() -> None:
    """Build the shipped base where it is shipped from."""

    def tell(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    tell(json.dumps(build(OrdersRecipe(), Path(__file__).parent, tell), indent=2))


if __name__ == "__main__":
    main()
