"""What is timed: base models with LoRA on them, and a batch of made-up token ids for each.

Weights are random except for the embedded base; time does not depend on their values. Knows nothing
of engines or clocks.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wardround.client.trainable import Trainable
from wardround.privacy.errors import BadInput

ALL_LINEAR = "all-linear"


@dataclass(frozen=True)
class Shape:
    """A model and a batch.

    Attributes:
        build: The base model, without an adapter.
        targets: Which layers get LoRA factors, in PEFT's terms.
        rows: Rows in a batch; each is a privacy unit of its own.
        tokens: Tokens in a row.
        rank: Of the factors.
    """

    build: Callable[[], nn.Module]
    targets: str | tuple[str, ...]
    rows: int
    tokens: int
    rank: int = 8


def _embedded() -> nn.Module:
    """The small drug model that is shipped."""
    from wardround.client.models import load_base

    own: nn.Module = copy.deepcopy(load_base("drugs").model)
    return own


def _gpt2() -> nn.Module:
    """GPT-2 small, 124 million parameters."""
    from transformers import GPT2Config, GPT2LMHeadModel

    model: nn.Module = GPT2LMHeadModel(GPT2Config(resid_pdrop=0, embd_pdrop=0, attn_pdrop=0))
    return model


def _qwen2() -> nn.Module:
    """Qwen2 0.5B with its vocabulary cut to 32,000: 0.39 billion parameters."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=32_000, hidden_size=896, intermediate_size=4864, num_hidden_layers=24,
        num_attention_heads=14, num_key_value_heads=2, max_position_embeddings=1024,
        tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model: nn.Module = Qwen2ForCausalLM(config)
    return model


# The demo's batch is 50 rows of about 16 tokens; it trains three layers. With LoRA everywhere such
# short rows have more gradient a token than any other shape here, which is the hardest for us.
_DEMO_LAYERS = tuple(f"model.layers.{layer}.mlp.down_proj" for layer in (5, 6, 7))
SHAPES = {
    "embedded": Shape(_embedded, ALL_LINEAR, rows=16, tokens=128),
    "embedded-short": Shape(_embedded, ALL_LINEAR, rows=50, tokens=16),
    "embedded-demo": Shape(_embedded, _DEMO_LAYERS, rows=50, tokens=16),
    "gpt2": Shape(_gpt2, ALL_LINEAR, rows=8, tokens=64),
    "qwen2": Shape(_qwen2, ALL_LINEAR, rows=4, tokens=32),
}


@dataclass(frozen=True)
class Subject:
    """A model with LoRA on it, a batch, and one loss a row."""

    trainable: Trainable
    ids: Tensor

    @property
    def rows(self) -> int:
        """Rows in the batch."""
        return len(self.ids)

    def losses(self, model: nn.Module | None = None) -> Tensor:
        """Mean cross-entropy of each row's own next tokens, shape ``(rows,)``."""
        logits = (model or self.trainable.model)(input_ids=self.ids, use_cache=False).logits
        return row_losses(logits, self.ids)

    def twin(self) -> Subject:
        """Modules and factors of its own on the same frozen weights."""
        frozen = {id(p): p for p in self.trainable.model.parameters() if not p.requires_grad}
        model = copy.deepcopy(self.trainable.model, frozen)
        return Subject(_trainable(model), self.ids)


def row_losses(logits: Tensor, ids: Tensor) -> Tensor:
    """Mean cross-entropy of each row's own next tokens, shape ``(rows,)``."""
    flat = functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
    )
    return flat.view(len(ids), -1).mean(1)


def make_subject(name: str, device: str = "cpu") -> Subject:
    """The shape called ``name``, built on ``device``.

    Raises:
        BadInput: There is no such shape.
    """
    if name not in SHAPES:
        raise BadInput(f"models: {name!r} is unknown; expected some of {', '.join(SHAPES)}")
    shape = SHAPES[name]
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        model = _adapted(shape).to(device)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:  # B starts at zero, and zeros would flatter some kernels
                drawn = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(0.02 * drawn)
    vocabulary: int = model.config.vocab_size
    ids = torch.randint(vocabulary, (shape.rows, shape.tokens), generator=generator)
    return Subject(_trainable(model.train()), ids.to(device))


def _adapted(shape: Shape) -> Any:
    """The base with LoRA factors."""
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    base = shape.build()
    targets = shape.targets if isinstance(shape.targets, str) else list(shape.targets)
    settings = LoraConfig(
        r=shape.rank,
        lora_alpha=2 * shape.rank,
        target_modules=targets,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in base.modules()),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(base, settings)


def _trainable(model: nn.Module) -> Trainable:
    """Everything that requires a gradient, by its own name."""
    return Trainable(model, {n: p for n, p in model.named_parameters() if p.requires_grad})
