"""Tiny models from configurations, batches in every grouping, and the oracle engines must equal.

The oracle is float64 autograd on one unit's rows alone: no engine, no other rows, no hooks.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from wardround.client.trainable import Trainable

VOCABULARY = 61
TOKENS = 7
ROWS = 6
LLAMA_LIKE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def base_model(name: str) -> nn.Module:
    """An untrained model; the weights that matter are set by ``trainable_lora``."""
    if name == "llama":
        return LlamaForCausalLM(LlamaConfig(**LLAMA_LIKE, tie_word_embeddings=True))
    if name == "qwen2":
        return Qwen2ForCausalLM(Qwen2Config(**LLAMA_LIKE))
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64,
        resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


@torch.no_grad()
def settle(model: nn.Module, dtype: torch.dtype) -> None:
    """Weights from a generator of our own, large enough that no gradient vanishes."""
    generator = torch.Generator().manual_seed(11)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(drawn / math.sqrt(parameter.shape[-1]))
    model.to(dtype)


def named_trainable(model: nn.Module) -> Trainable:
    return Trainable(model, {n: p for n, p in model.named_parameters() if p.requires_grad})


def trainable_lora(
    name: str, dtype: torch.dtype = torch.float64, checkpointing: bool | None = None, **lora: Any
) -> Trainable:
    """LoRA on every linear layer of a tiny model, factors both away from zero."""
    settings: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}
    settings |= {"task_type": "CAUSAL_LM", "fan_in_fan_out": name == "gpt2"}
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        model = get_peft_model(
            base_model(name), LoraConfig(**(settings | lora)), autocast_adapter_dtype=False
        )
    settle(model, dtype)
    model.eval()
    if checkpointing is not None:
        inner = model.base_model.model
        inner.activation_checkpointing_enable({"use_reentrant": checkpointing})
        model.enable_input_require_grads()
        model.train()
    return named_trainable(model)


@dataclass
class Case:
    """A batch of rows and how they make up units.

    Attributes:
        kind: ``record``, ``pair`` (rows 2u and 2u+1), ``list`` (three rows each, the first of
            them the best) or ``patient`` (an arbitrary index).
        trainable: The model.
        ids: Token ids, shape ``(rows, tokens)``.
        forwards: One pass for all rows, or two passes whose losses are added.
        reference: Also score the rows with the adapter switched off, without gradients.
    """

    kind: str
    trainable: Trainable
    forwards: int = 1
    reference: bool = False
    ids: Tensor = field(init=False)
    unit_of_row: Tensor = field(init=False)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(5)
        self.ids = torch.randint(0, VOCABULARY, (ROWS, TOKENS), generator=generator)
        self.unit_of_row = {
            "record": torch.arange(ROWS),
            "pair": torch.arange(ROWS // 2).repeat_interleave(2),
            "list": torch.arange(ROWS // 3).repeat_interleave(3),
            "patient": torch.tensor([0, 2, 1, 0, 2, 0]),
        }[self.kind]

    @property
    def units(self) -> int:
        return int(self.unit_of_row.max()) + 1

    def losses(self, only: int | None = None) -> Tensor:
        """One loss a unit; nonlinear in the unit's rows, so rows cannot pass for units."""
        rows = torch.arange(ROWS) if only is None else (self.unit_of_row == only).nonzero()[:, 0]
        ids, units = self.ids[rows], self.units if only is None else 1
        index = (
            self.unit_of_row[rows] if only is None else torch.zeros(len(rows), dtype=torch.int64)
        )
        score = self._scores(ids)
        if self.forwards == 2:
            score = score + 0.5 * self._scores(ids.flip(1))
        if self.reference:
            with torch.no_grad(), self.trainable.model.disable_adapter():
                apart = self._scores(ids)
            score = score - apart.square()
        if self.kind == "pair":
            return -functional.logsigmoid(2 * (score[1::2] - score[0::2]))
        if self.kind == "list":
            return -functional.log_softmax(2 * score.view(units, 3), 1)[:, 0]
        summed = torch.zeros(units, dtype=score.dtype).index_add(0, index, score)
        return summed if self.kind == "record" else summed.square()

    def _scores(self, ids: Tensor) -> Tensor:
        """Mean negative log-likelihood of each row's own tokens."""
        logits = self.trainable.model(input_ids=ids, use_cache=False).logits
        loss = functional.cross_entropy(logits[:, :-1].mT, ids[:, 1:], reduction="none")
        return loss.mean(1)

    def oracle(self) -> dict[str, Tensor]:
        return one_by_one(self.trainable, lambda unit: self.losses(unit)[0], self.units)


def one_by_one(
    trainable: Trainable, loss: Callable[[int], Tensor], units: int
) -> dict[str, Tensor]:
    """Each unit's gradient by plain autograd; ``loss`` must run that unit's rows alone."""
    parameters = list(trainable.parameters.values())
    found = []
    for unit in range(units):
        for parameter in parameters:
            parameter.grad = None
        loss(unit).backward()
        found.append([torch.zeros_like(p) if p.grad is None else p.grad for p in parameters])
    for parameter in parameters:
        parameter.grad = None
    return {
        name: torch.stack([gradients[place] for gradients in found])
        for place, name in enumerate(trainable.parameters)
    }


def worst(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Largest difference over all parameters, relative to the largest expected entry."""
    assert found.keys() == expected.keys()
    scale = max(float(rows.abs().max()) for rows in expected.values())
    assert scale > 1e-3, "a gradient that vanishes shows nothing"
    gaps = [float((found[name].double() - expected[name].double()).abs().max()) for name in found]
    return max(gaps) / scale


@pytest.fixture(scope="session")
def kit() -> Any:
    """The functions of this file, for tests that pytest imports by path."""

    class Kit:
        case = Case
        lora = staticmethod(trainable_lora)
        named = staticmethod(named_trainable)
        settle = staticmethod(settle)
        one_by_one = staticmethod(one_by_one)
        worst = staticmethod(worst)

    return Kit
