"""Prompts and answers as padded rows of token ids, and what a model says at the answer's places.

Rows are padded on the right, under an attention mask, so that no row depends on how long its
neighbours are. Knows nothing of privacy units or files. Source: Xu et al. (2024), "Editing factual
knowledge and explanatory ability of medical LLMs", released code: prompt, answer and end token form
one sequence and the prompt is masked out of the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

IGNORED = -100
Row = tuple[list[int], int]


def encode(tokenizer: Any, prompt: str, answer: str, max_length: int, eos: bool = True) -> Row:
    """Token ids of ``prompt answer`` and the place where the answer starts.

    Nothing is refused for its length, because a refusal would tell about the data: an answer keeps
    its first tokens and at most ``max_length - 1``, a prompt its last ones in what room is left.

    Returns:
        The ids, at most ``max_length`` of them, and how many belong to the prompt (at least 1).
    """
    head: list[int] = tokenizer(prompt)["input_ids"]
    if head and head[-1] == tokenizer.eos_token_id:
        head = head[:-1]
    tail: list[int] = tokenizer(" " + answer.strip(), add_special_tokens=False)["input_ids"]
    if eos and tokenizer.eos_token_id is not None:
        tail = [*tail, tokenizer.eos_token_id]
    tail = tail[: max_length - 1]
    head = head[-(max_length - len(tail)) :]
    return head + tail, len(head)


def pad(rows: Sequence[Row], pad_token_id: int) -> dict[str, Tensor]:
    """Rows of different length as tensors of shape ``(rows, longest)``, padded on the right.

    Returns:
        ``input_ids``, ``attention_mask`` and ``labels``, which are ``IGNORED`` outside the answer.
    """
    longest = max((len(ids) for ids, _ in rows), default=1)
    input_ids = torch.full((len(rows), longest), pad_token_id)
    attention_mask = torch.zeros(len(rows), longest, dtype=torch.long)
    labels = torch.full((len(rows), longest), IGNORED)
    for place, (ids, start) in enumerate(rows):
        input_ids[place, : len(ids)] = torch.tensor(ids)
        attention_mask[place, : len(ids)] = 1
        labels[place, start : len(ids)] = torch.tensor(ids[start:])
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


def token_losses(model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Cross-entropy of every next token, and where those tokens belong to an answer.

    Returns:
        Losses of shape ``(rows, longest - 1)``, in the logits' type, and a mask of the same shape.
    """
    logits = model(
        input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
    ).logits[:, :-1]
    following = inputs["input_ids"][:, 1:]
    losses = functional.cross_entropy(logits.transpose(1, 2), following, reduction="none")
    return losses, inputs["labels"][:, 1:] != IGNORED


@torch.no_grad()
def predictions(
    model: nn.Module, rows: Sequence[Row], pad_token_id: int, rows_per_pass: int = 256
) -> list[Tensor]:
    """The most likely token at each answer place, given the gold tokens before it.

    Returns:
        One int64 tensor a row, shape ``(answer tokens,)``, on the CPU.
    """
    device = next(model.parameters()).device
    found: list[Tensor] = []
    for start in range(0, len(rows), rows_per_pass):
        part = rows[start : start + rows_per_pass]
        inputs = {name: value.to(device) for name, value in pad(part, pad_token_id).items()}
        logits = model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
        ).logits
        best = logits.argmax(-1).cpu()
        found += [best[i, begin - 1 : len(ids) - 1] for i, (ids, begin) in enumerate(part)]
    return found
