"""A tiny CLIP model in float64, its tokenizer, and pictures of the made-up world."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from wardround.client.models import BASES
from wardround.client.tasks.cocoop.dealing import as_png
from wardround.client.tasks.cocoop.formats import in_memory
from wardround.client.tasks.cocoop.world import draw

NAMES = ("red disc", "blue ring", "three", "green bar", "one")


def tiny_clip(width: int = 16, seen: int = 16, projection: int = 8, eos: int | None = None) -> Any:
    """One or two layers, values away from a fresh model's symmetric start."""
    from transformers import CLIPConfig, CLIPModel

    shared = {"num_hidden_layers": 1, "num_attention_heads": 2, "projection_dim": projection}
    text = shared | {
        "hidden_size": width, "intermediate_size": 16, "vocab_size": 395,
        "max_position_embeddings": 20, "pad_token_id": 0, "bos_token_id": 2,
        "eos_token_id": 3 if eos is None else eos,
    }  # fmt: skip
    vision = shared | {
        "hidden_size": seen, "intermediate_size": 16, "image_size": 16, "patch_size": 8,
    }  # fmt: skip
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=projection)
    with torch.random.fork_rng(devices=[]):
        model = CLIPModel(config).double().eval()
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "logit_scale":
                parameter.normal_(0.0, 0.3, generator=generator)
    return model.requires_grad_(False)


@pytest.fixture(scope="session")
def make_clip():
    return tiny_clip


@pytest.fixture
def clip():
    return tiny_clip()


@pytest.fixture(scope="session")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(BASES / "pictures", local_files_only=True)


@pytest.fixture(scope="session")
def names():
    return NAMES


@pytest.fixture(scope="session")
def pictures():
    """One picture of each name, and a second of the first."""
    generator = torch.Generator().manual_seed(4)
    return [in_memory(name, as_png(draw(name, generator))) for name in (*NAMES, NAMES[0])]
