"""Train the embedded ranking base again: general text, then stage 1 on public weak pairs.

``python -m wardround.client.bases.build_notes`` (or ``make bases``) writes ``client/bases/notes``:
a Llama of about 184,000 parameters that knows what public questions ask of notes, and
nothing of the lay words that only hospitals' questions use. Nothing is private.
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

from wardround.client.bases.making import (
    MAX_LENGTH,
    Shape,
    byte_level_tokenizer,
    new_llama,
    save_base,
)
from wardround.client.tasks.ranking.rows import encode, encode_query
from wardround.client.tasks.ranking.stage_one import StageOne, pretrain
from wardround.client.tasks.ranking.world import FILLERS, SYLLABLES, RankingWorld, weak_pairs


@dataclass(frozen=True)
class NotesRecipe:
    """How the ranking base is made; the defaults are the shipped one.

    Attributes:
        name: Folder.
        world: Whose words it learns; of hospitals' own lay words it sees none.
        shape: How large it is.
        texts: Single notes and single questions of the general stage.
        general: How the general stage is trained.
        pairs: Weak pairs of stage 1.
        stage_one: How stage 1 is trained.
        seed: Public.
    """

    name: str = "notes"
    world: RankingWorld = field(default_factory=RankingWorld)
    shape: Shape = field(default_factory=lambda: Shape(hidden=64, layers=3, heads=4, mlp=172))
    texts: int = 4000
    general: StageOne = field(default_factory=lambda: StageOne(60, 3e-3))
    pairs: int = 12000
    stage_one: StageOne = field(default_factory=lambda: StageOne(160, 3e-3))
    seed: int = 0


def train_tokenizer() -> Any:
    """A tokenizer in which everyday words and syllables are one token; it spells any text.

    A query follows the prompt directly; the prefix space spells its first word as anywhere else.
    """
    pieces = [piece for syllable in SYLLABLES for piece in (syllable, " " + syllable)]
    everyday = ["Document", ":", " Query", *(" " + word for word in FILLERS)]
    return byte_level_tokenizer([*pieces * 1000, *everyday * 10], 1000, prefix_space=True)


def general_model(
    recipe: NotesRecipe,
    tokenizer: Any,
    generator: torch.Generator,
    tell: Callable[[str], None] = lambda line: None,
) -> nn.Module:
    """A model that has read single notes and single questions, and knows nothing of pairs."""
    model = new_llama(recipe.shape, tokenizer, generator)
    pairs = weak_pairs(recipe.world, (recipe.texts + 1) // 2, recipe.seed + 1)
    start = (tokenizer.bos_token_id,)
    texts = [(start, encode_query(tokenizer, text, MAX_LENGTH)) for pair in pairs for text in pair]
    pretrain(model, texts, recipe.general, tokenizer.pad_token_id, generator, tell)
    return model


def adapt_to_ranking(
    recipe: NotesRecipe,
    model: nn.Module,
    tokenizer: Any,
    generator: torch.Generator,
    tell: Callable[[str], None] = lambda line: None,
) -> None:
    """Stage 1 on weak pairs, in place."""
    pairs = weak_pairs(recipe.world, recipe.pairs, recipe.seed)
    rows = [encode(tokenizer, note, question, MAX_LENGTH, 32) for note, question in pairs]
    pretrain(model, rows, recipe.stage_one, tokenizer.pad_token_id, generator, tell)


def build(recipe: NotesRecipe, bases: Path, tell: Callable[[str], None]) -> dict[str, Any]:
    """Make the base and put it into ``bases/<name>``; returns its manifest."""
    began = time.monotonic()
    generator = torch.Generator().manual_seed(recipe.seed)
    tokenizer = train_tokenizer()
    model = general_model(recipe, tokenizer, generator, tell)
    adapt_to_ranking(recipe, model, tokenizer, generator, tell)
    world = recipe.world
    facts = {
        "made_by": "python -m wardround.client.bases.build_notes",
        "world": {
            "seed": world.seed,
            "findings": world.findings,
            "public_findings": world.public_findings,
        },
        "steps": {"general": recipe.general.steps, "stage_one": recipe.stage_one.steps},
        "pairs": recipe.pairs,
        "seconds": round(time.monotonic() - began, 1),
    }
    return save_base(model, tokenizer, bases / recipe.name, facts)


def main() -> None:
    """Build the shipped base where it is shipped from."""

    def tell(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    tell(json.dumps(build(NotesRecipe(), Path(__file__).parent, tell), indent=2))


if __name__ == "__main__":
    main()
