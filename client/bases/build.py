"""Train the embedded base model and its tokenizer again, from the generated medical world alone.

``python -m wardround.client.bases.build`` (or ``make bases``) writes ``client/bases/drugs``: a
Llama of about 1.7 million parameters that knows every fact of the world, and a byte-level BPE
tokenizer that can spell any text. Two of the six phrasings are shown for two thirds of the drugs
only, so that what the base makes of unseen phrasings is knowledge, not memory. Nothing is private.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wardround.client.bases.making import (
    MAX_LENGTH,
    Shape,
    byte_level_tokenizer,
    new_llama,
    save_base,
)
from wardround.client.tasks.editing.world import (
    PHRASING_COUNT,
    PHRASINGS,
    SUFFIXES,
    SYLLABLES,
    World,
)
from wardround.client.tasks.rows import IGNORED, Row, encode, pad, predictions

COMMON_PHRASINGS = 4


@dataclass(frozen=True)
class Recipe:
    """How a base is made; the defaults are the shipped one."""

    name: str = "drugs"
    world: World = field(default_factory=World)
    drugs_in_all_phrasings: int = 160
    vocabulary: int = 800
    shape: Shape = field(default_factory=lambda: Shape(hidden=128, layers=8, heads=4, mlp=344))
    steps: int = 1000
    warm_up_steps: int = 50
    batch: int = 64
    learning_rate: float = 1.5e-3
    prompt_weight: float = 0.1
    seed: int = 0


def train_tokenizer(vocabulary: int) -> Any:
    """A tokenizer of the world's sentences, which can spell any text.

    Syllables are shown far more often than sentences and so become tokens first: names, those of
    other worlds too, then split into syllables.
    """
    sentences = [text.format(drug="") for texts in PHRASINGS.values() for text in texts]
    pieces = [
        piece
        for syllable in SYLLABLES
        for piece in (syllable, " " + syllable, " " + syllable.capitalize())
    ]
    corpus = sentences * 10 + [*pieces, *SUFFIXES.values()] * 1000
    return byte_level_tokenizer(corpus, vocabulary)


def sentences(recipe: Recipe, tokenizer: Any) -> tuple[list[Row], list[Row]]:
    """The rows to train on, and those of the phrasings that some drugs are never shown in."""
    shown: list[Row] = []
    unseen: list[Row] = []
    common = set(recipe.world.names[: recipe.drugs_in_all_phrasings])
    for fact in recipe.world.facts:
        for phrasing in range(PHRASING_COUNT):
            row = encode(tokenizer, fact.prompt(phrasing), fact.value, MAX_LENGTH)
            known = phrasing < COMMON_PHRASINGS or fact.drug in common
            (shown if known else unseen).append(row)
    return shown, unseen


def weighted_loss(model: nn.Module, inputs: dict[str, Tensor], prompt_weight: float) -> Tensor:
    """Mean cross-entropy over all tokens; one of a prompt counts ``prompt_weight``, else 1."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
    losses = functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    weight = torch.where(inputs["labels"][:, 1:] == IGNORED, prompt_weight, 1.0) * mask[:, 1:]
    return (losses * weight).sum() / weight.sum()


def exact_match(model: nn.Module, rows: Sequence[Row], pad_token_id: int) -> float:
    """The share of rows whose whole answer, end token included, is the model's first choice."""
    if not rows:
        return math.nan
    said = predictions(model, rows, pad_token_id)
    right = sum(s == list(ids[start:]) for s, (ids, start) in zip(said, rows, strict=True))
    return right / len(rows)


def train(
    recipe: Recipe, model: nn.Module, rows: Sequence[Row], pad_token_id: int,
    generator: torch.Generator, tell: Callable[[str], None],
) -> None:  # fmt: skip
    """AdamW under a linear warm-up and decay, epoch after epoch in fresh random order."""
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
    model.train()
    order: list[int] = []
    for step in range(recipe.steps):
        if len(order) < recipe.batch:
            order = torch.randperm(len(rows), generator=generator).tolist()
        chosen, order = order[: recipe.batch], order[recipe.batch :]
        warm = min(1.0, (step + 1) / recipe.warm_up_steps)
        optimizer.param_groups[0]["lr"] = recipe.learning_rate * warm * (1 - step / recipe.steps)
        loss = weighted_loss(
            model, pad([rows[i] for i in chosen], pad_token_id), recipe.prompt_weight
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 100 == 0:
            tell(f"step {step + 1} of {recipe.steps}, loss {loss.item():.3f}")
    model.eval()


def build(recipe: Recipe, bases: Path, tell: Callable[[str], None]) -> dict[str, Any]:
    """Make the base and put it into ``bases/<name>``, replacing what was there at the very end.

    Returns:
        The manifest, which is also written beside the weights.
    """
    began = time.monotonic()
    generator = torch.Generator().manual_seed(recipe.seed)
    tokenizer = train_tokenizer(recipe.vocabulary)
    model: Any = new_llama(recipe.shape, tokenizer, generator)
    shown, unseen = sentences(recipe, tokenizer)
    train(recipe, model, shown, tokenizer.pad_token_id, generator, tell)
    facts = {
        "made_by": "python -m wardround.client.bases.build",
        "world": {"seed": recipe.world.seed, "drugs": recipe.world.drugs,
                  "objects": recipe.world.objects},
        "steps": recipe.steps,
        "sentences": {"shown": len(shown), "unseen": len(unseen)},
        "exact_match": {
            "shown": exact_match(model, shown, tokenizer.pad_token_id),
            "unseen": exact_match(model, unseen, tokenizer.pad_token_id),
        },
        "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip
    return save_base(model, tokenizer, bases / recipe.name, facts)


def main() -> None:
    """Build the shipped base where it is shipped from."""

    def tell(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    tell(json.dumps(build(Recipe(), Path(__file__).parent, tell), indent=2))


if __name__ == "__main__":
    main()
