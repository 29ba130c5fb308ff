"""Tiny decoders of seven families, made from their configurations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GemmaConfig,
    GPT2Config,
    GPTJConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
)

_SHAPE: dict[str, Any] = {
    "vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 32,
    "head_dim": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
FAMILIES: dict[str, Any] = {
    "llama": lambda: LlamaConfig(**_SHAPE),
    "qwen2": lambda: Qwen2Config(**_SHAPE),
    "mistral": lambda: MistralConfig(**_SHAPE, sliding_window=4),
    "gemma": lambda: GemmaConfig(**_SHAPE),
    "gemma2": lambda: Gemma2Config(**_SHAPE, sliding_window=4),
    # Its blocks return tuples, and its attention and MLP run side by side.
    "gptj": lambda: GPTJConfig(
        vocab_size=50, n_embd=16, n_layer=4, n_head=2, n_positions=32, rotary_dim=4,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    ),
    "gpt2": lambda: GPT2Config(
        vocab_size=50, n_embd=16, n_layer=4, n_head=2, n_positions=32, bos_token_id=1,
        eos_token_id=2, pad_token_id=0,
    ),
}  # fmt: skip


def _make(name: str) -> Any:
    """A frozen model in float64 whose matrices are large enough for its layers to matter."""
    generator = torch.Generator().manual_seed(5)
    with torch.random.fork_rng(devices=[]):
        model = AutoModelForCausalLM.from_config(FAMILIES[name]())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.double().eval().requires_grad_(False)


@pytest.fixture
def make() -> Callable[[str], Any]:
    """Makes a family's tiny model by name."""
    return _make
