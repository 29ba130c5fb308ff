"""The pointwise baseline: a linear head on the last token of "query: ... document: ...".

Source: Ma et al. (2023), "Fine-tuning LLaMA for multi-stage text retrieval" (RankLLaMA), section
3.2; Tevatron's input text. Knows nothing of lists or units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from wardround.client.tasks.ranking.likelihood import accepted

HEAD_WEIGHT = "head.weight"


class HeadRanker(nn.Module):
    """A language model whose last hidden state becomes one number.

    Args:
        model: A causal language model, adapted or not.
        generator: Public; the head's first values are uniform in ``±1 / sqrt(hidden)``.
    """

    def __init__(self, model: nn.Module, generator: torch.Generator) -> None:
        super().__init__()
        self.model = model
        width: int = model.get_input_embeddings().weight.shape[1]  # type: ignore[operator]
        some = next(model.parameters())
        self.head = nn.Linear(width, 1, bias=False, device=some.device, dtype=some.dtype)
        with torch.no_grad():
            uniform = torch.rand(self.head.weight.shape, generator=generator)
            self.head.weight.copy_((2 * uniform - 1) / width**0.5)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """One logit a row, shape ``(rows,)``; rows are padded on the right."""
        extra: dict[str, Any] = (
            {"logits_to_keep": 1} if "logits_to_keep" in accepted(self.model) else {}
        )
        hidden: Tensor = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            use_cache=False,
            output_hidden_states=True,
            **extra,
        ).hidden_states[-1]
        last = attention_mask.sum(1) - 1
        states = hidden[torch.arange(len(hidden), device=hidden.device), last]
        logits: Tensor = self.head(states)
        return logits.squeeze(1)


@lru_cache(maxsize=1 << 15)
def encode_head(tokenizer: Any, passage: str, query: str, max_length: int) -> tuple[int, ...]:
    """Token ids of ``query: ... document: ...``; a passage that does not fit loses its end."""
    ids: list[int] = tokenizer(f"query: {query} document: {passage}")["input_ids"]
    return tuple(ids[:max_length])


def head_scores(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Logits of padded rows, in float32 or, for such a model, float64."""
    logits: Tensor = model(inputs["input_ids"], inputs["attention_mask"])
    return logits if logits.dtype == torch.float64 else logits.float()


def pad_head(rows: Sequence[tuple[int, ...]], filler: int) -> dict[str, Tensor]:
    """Rows padded on the right: ``input_ids`` and ``attention_mask``."""
    longest = max((len(row) for row in rows), default=1)
    ids = [[*row, *(filler,) * (longest - len(row))] for row in rows]
    length = torch.tensor([len(row) for row in rows], dtype=torch.long).unsqueeze(1)
    return {
        "input_ids": torch.tensor(ids, dtype=torch.long).view(len(rows), longest),
        "attention_mask": (torch.arange(longest) < length).long(),
    }
