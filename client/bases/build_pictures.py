"""Train the embedded base of pictures and texts again, from the made-up world of pictures alone.

``python -m wardround.client.bases.build_pictures`` (or ``make bases``) writes
``client/bases/pictures``: a CLIP model of about a quarter of a million parameters that knows the
names of coloured shapes and of digits as strokes. Symmetric contrastive loss as in Radford et al.
(2021), figure 3; pictures of one name in a batch all count as right. Nothing is private.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wardround.client.bases.making import SPECIAL_TOKENS, byte_level_tokenizer, save_base
from wardround.client.tasks.cocoop.encoding import (
    Template,
    image_features,
    make_template,
    text_features,
    word_features,
)
from wardround.client.tasks.cocoop.images import Normalisation
from wardround.client.tasks.cocoop.world import NAMES, SIDE, draw

CAPTIONS = ("a photo of a {}.", "a picture of the {}.", "a {}.", "this is a {}.", "one small {}.",
            "a photo of the {}.", "a blurry photo of a {}.", "here you see a {}.")  # fmt: skip
MAX_PLACES = 24


@dataclass(frozen=True)
class PicturesRecipe:
    """How the base of pictures is made; the defaults are the shipped one."""

    name: str = "pictures"
    width: int = 64
    text_layers: int = 2
    vision_layers: int = 3
    heads: int = 4
    patch: int = 8
    vocabulary: int = 420
    names: tuple[str, ...] = NAMES
    pictures_per_name: int = 120
    steps: int = 2000
    batch: int = 128
    learning_rate: float = 1e-3
    warm_up_steps: int = 50
    seed: int = 0


def new_clip(recipe: PicturesRecipe, tokenizer: Any, generator: torch.Generator) -> Any:
    """An untrained CLIP model; matrices normal with deviation ``0.5 / sqrt(width)``."""
    from transformers import CLIPConfig, CLIPModel

    shared = {
        "hidden_size": recipe.width,
        "intermediate_size": 2 * recipe.width,
        "num_attention_heads": recipe.heads,
        "projection_dim": recipe.width,
    }
    text = shared | {
        "vocab_size": len(tokenizer),
        "num_hidden_layers": recipe.text_layers,
        "max_position_embeddings": MAX_PLACES,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    vision = shared | {
        "num_hidden_layers": recipe.vision_layers,
        "image_size": SIDE,
        "patch_size": recipe.patch,
    }
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=recipe.width)
    # The library's own first values come from the global generator; the fork leaves that as it was.
    with torch.random.fork_rng(devices=[]):
        model = CLIPModel(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name == "logit_scale":
                parameter.fill_(math.log(1 / 0.07))
            elif parameter.dim() > 1 or "embedding" in name:
                deviation = 0.02 if "embedding" in name else 0.5 / math.sqrt(recipe.width)
                parameter.normal_(0.0, deviation, generator=generator)
            else:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
    return model


def train(
    recipe: PicturesRecipe, model: Any, pictures: Tensor, template: Template,
    generator: torch.Generator, tell: Callable[[str], None],
) -> float:  # fmt: skip
    """AdamW with warm-up and cosine decay; returns the mean loss of the last hundred steps.

    Args:
        recipe: Steps, batch and rate.
        model: From ``new_clip``.
        pictures: Normalised, shape ``(names * pictures_per_name, 3, side, side)``, name by name.
        template: Prompts, name by name, each in all captions.
        generator: Public; chooses pictures and captions.
        tell: Told each hundred steps.
    """
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.05)
    model.train()
    recent: list[float] = []
    for step in range(recipe.steps):
        chosen = torch.randint(len(pictures), (recipe.batch,), generator=generator)
        named = chosen // recipe.pictures_per_name
        caption = torch.randint(len(CAPTIONS), (recipe.batch,), generator=generator)
        row = named * len(CAPTIONS) + caption
        rate = recipe.learning_rate * min(1.0, (step + 1) / recipe.warm_up_steps)
        rate *= 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
        optimizer.param_groups[0]["lr"] = rate
        loss = contrastive_loss(
            model, pictures[chosen], template.ids[row], template.ends[row], named
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(100))
        recent = [*recent[-99:], loss.item()]
        if (step + 1) % 100 == 0:
            tell(f"step {step + 1} of {recipe.steps}, loss {sum(recent) / len(recent):.3f}")
    model.eval()
    return sum(recent) / len(recent)


def contrastive_loss(
    model: Any, pixels: Tensor, ids: Tensor, ends: Tensor, named: Tensor
) -> Tensor:
    """Which caption belongs to which picture, both ways; those of one name share the answer."""
    words = model.text_model.embeddings.token_embedding(ids)
    cosines = image_features(model, pixels) @ text_features(model, words, ends).T
    logits = model.logit_scale.exp() * cosines
    same = (named[:, None] == named[None]).float()
    answer = same / same.sum(1, keepdim=True)
    return (
        functional.cross_entropy(logits, answer) + functional.cross_entropy(logits.T, answer)
    ) / 2


@torch.no_grad()
def share_named_right(model: Any, tokenizer: Any, recipe: PicturesRecipe, count: int) -> float:
    """Share of fresh pictures, ``count`` of each name, whose own name is the likeliest of all."""
    generator = torch.Generator().manual_seed(recipe.seed + 1)
    template = make_template(
        tokenizer, [[CAPTIONS[0].format(name)] for name in recipe.names], MAX_PLACES
    )
    texts = word_features(model, template)
    right = 0
    for place, name in enumerate(recipe.names):
        pixels = _pictures([name], count, generator)
        right += int(((image_features(model, pixels) @ texts.T).argmax(1) == place).sum())
    return right / (count * len(recipe.names))


def build(recipe: PicturesRecipe, bases: Path, tell: Callable[[str], None]) -> dict[str, Any]:
    """Make the base and put it into ``bases/<name>``; returns its manifest."""
    began = time.monotonic()
    generator = torch.Generator().manual_seed(recipe.seed)
    texts = [caption.format(name) for name in recipe.names for caption in CAPTIONS]
    # An end token of id 2 would make transformers pool where the highest id stands.
    pad, begin, end = SPECIAL_TOKENS
    special = (pad, "<unk>", begin, end)
    tokenizer = byte_level_tokenizer(texts, recipe.vocabulary, special=special)
    model = new_clip(recipe, tokenizer, generator)
    template = make_template(tokenizer, [[text] for text in texts], MAX_PLACES)
    pictures = _pictures(recipe.names, recipe.pictures_per_name, generator)
    loss = train(recipe, model, pictures, template, generator, tell)
    facts = {
        "made_by": "python -m wardround.client.bases.build_pictures",
        "names": len(recipe.names),
        "pictures": len(pictures),
        "steps": recipe.steps,
        "loss": round(loss, 4),
        "named_right": round(share_named_right(model, tokenizer, recipe, 5), 4),
        "seconds": round(time.monotonic() - began, 1),
    }
    return save_base(model, tokenizer, bases / recipe.name, facts)


def _pictures(names: Sequence[str], count: int, generator: torch.Generator) -> Tensor:
    """Normalised pictures, ``count`` of each name, name by name."""
    drawn = [draw(name, generator) for name in names for _ in range(count)]
    return Normalisation().apply(torch.stack(drawn))


def main() -> None:
    """Build the shipped base where it is shipped from."""

    def tell(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    tell(json.dumps(build(PicturesRecipe(), Path(__file__).parent, tell), indent=2))


if __name__ == "__main__":
    main()
