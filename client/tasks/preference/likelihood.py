"""How likely a model finds each reply: sums of log-probabilities over the reply's own tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wardround.client.tasks.rows import IGNORED, encode, pad, pad_token_id


def log_likelihoods(model: nn.Module, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Each row's log-likelihood of its labelled tokens, and how many those are.

    Args:
        model: A causal language model.
        inputs: ``input_ids``, ``attention_mask`` and ``labels``, which are ``IGNORED`` on the
            prompt; shape ``(rows, longest)``, padded on the right.

    Returns:
        Two tensors of shape ``(rows,)``, in float32 or float64 for such a model; each row's values
        depend on that row alone.
    """
    logits = model(
        input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
    ).logits[:, :-1]
    following = inputs["labels"][:, 1:]
    rows, places = (following != IGNORED).nonzero(as_tuple=True)
    spoken = logits[rows, places]
    spoken = spoken if spoken.dtype == torch.float64 else spoken.float()
    tokens = following[rows, places]
    chosen = spoken.gather(1, tokens[:, None]).squeeze(1) - spoken.logsumexp(1)
    sums = chosen.new_zeros(len(following)).index_add(0, rows, chosen)
    counts = torch.zeros_like(sums).index_add(0, rows, torch.ones_like(chosen))
    return sums, counts.clamp(min=1)


@torch.no_grad()
def likelihoods_of(
    model: nn.Module,
    tokenizer: Any,
    texts: Sequence[tuple[str, str]],
    max_length: int,
    rows_per_pass: int = 64,
) -> Tensor:
    """How likely each (prompt, reply) is to the model as it stands, float64, shape ``(texts,)``."""
    device = next(model.parameters()).device
    found = [torch.zeros(0, dtype=torch.float64)]
    for start in range(0, len(texts), rows_per_pass):
        part = [
            encode(tokenizer, *text, max_length) for text in texts[start : start + rows_per_pass]
        ]
        inputs = {name: x.to(device) for name, x in pad(part, pad_token_id(tokenizer)).items()}
        found.append(log_likelihoods(model, inputs)[0].double().cpu())
    return torch.cat(found)
