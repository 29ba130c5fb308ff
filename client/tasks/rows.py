"""Prompts and answers as padded rows of token ids, and what a model says at the answer's places.

Rows are padded on the right, under an attention mask, so that no row depends on how long its
neighbours are. Knows nothing of privacy units or files. Source: Xu et al. (2024), "Editing factual
knowledge and explanatory ability of medical LLMs", released code: prompt, answer and end token form
one sequence and the prompt is masked out of the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

IGNORED = -100
Row = tuple[tuple[int, ...], int]


@lru_cache(maxsize=1 << 15)
def encode(tokenizer: Any, prompt: str, answer: str, max_length: int, eos: bool = True) -> Row:
    """Token ids of ``prompt answer`` and the place where the answer starts.

    Nothing is refused for its length, because a refusal would tell about the data: an answer keeps
    its first tokens and at most ``max_length - 1``, a prompt its last ones in what room is left.
    Remembered, because a study reads the same records in every round.

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
    return (*head, *tail), len(head)


def pad_token_id(tokenizer: Any) -> int:
    """What fills the right end of short rows; it is masked everywhere, so any token would do."""
    token = tokenizer.pad_token_id
    return int(token if token is not None else tokenizer.eos_token_id or 0)


def pad(rows: Sequence[Row], filler: int) -> dict[str, Tensor]:
    """Rows of different length as tensors of shape ``(rows, longest)``, padded on the right.

    Returns:
        ``input_ids``, ``attention_mask`` and ``labels``, which are ``IGNORED`` outside the answer.
    """
    longest = max((len(ids) for ids, _ in rows), default=1)
    padded = [[*ids, *(filler,) * (longest - len(ids))] for ids, _ in rows]
    input_ids = torch.tensor(padded, dtype=torch.long).view(len(rows), longest)
    place = torch.arange(longest)
    length = torch.tensor([len(ids) for ids, _ in rows], dtype=torch.long).unsqueeze(1)
    start = torch.tensor([start for _, start in rows], dtype=torch.long).unsqueeze(1)
    answer = (place >= start) & (place < length)
    return {
        "input_ids": input_ids,
        "attention_mask": (place < length).long(),
        "labels": input_ids.masked_fill(~answer, IGNORED),
    }


def pad_prompts(
    prompts: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], max_length: int
) -> dict[str, Tensor]:
    """Each row's prompt to trace and its subject's places, as tensors.

    Returns:
        ``traced_ids`` of shape ``(rows, longest)`` and ``traced_span`` of shape ``(rows, 3)``: the
        subject's first place, the place after its last, and the prompt's length. A prompt without
        its subject, or longer than ``max_length``, has length 0: it is not traced.
    """
    usable = [(ids, at) if at and len(ids) <= max_length else ((), ()) for ids, at in prompts]
    longest = max((len(ids) for ids, _ in usable), default=0)
    ids = [[*ids, *(0,) * (longest - len(ids))] for ids, _ in usable]
    spans = [(at[0], at[-1] + 1, len(ids)) if at else (0, 0, 0) for ids, at in usable]
    return {
        "traced_ids": torch.tensor(ids, dtype=torch.long).view(len(usable), longest),
        "traced_span": torch.tensor(spans, dtype=torch.long).view(len(usable), 3),
    }


def answer_losses(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Mean cross-entropy of each row's answer tokens, shape ``(rows,)``.

    Every row's value is a function of that row alone. In float32, or float64 for such a model.
    """
    return _row_losses(_logits(model, inputs), inputs["labels"])


def _row_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """``answer_losses`` from what the model said after every token."""
    logits, following = logits[:, :-1], labels[:, 1:]
    rows, places = (following != IGNORED).nonzero(as_tuple=True)
    # Only answer places go through the softmax: a prompt's are most of a row and not needed.
    chosen = logits[rows, places]
    chosen = chosen if chosen.dtype == torch.float64 else chosen.float()
    losses = functional.cross_entropy(chosen, following[rows, places], reduction="none")
    total = losses.new_zeros(len(following)).index_add(0, rows, losses)
    return total / (following != IGNORED).sum(1).clamp(min=1)


@dataclass(frozen=True)
class Said:
    """What a model says at a row's answer places, given the right tokens before each.

    Attributes:
        tokens: The most likely token at each place.
        loss: Mean cross-entropy of the right tokens.
    """

    tokens: list[int]
    loss: float


def predictions(
    model: nn.Module, rows: Sequence[Row], filler: int, rows_per_pass: int = 128
) -> list[list[int]]:
    """The most likely token at each answer place of each row, given the right tokens before it."""
    return [said.tokens for said in ask(model, rows, filler, rows_per_pass)]


@torch.no_grad()
def ask(
    model: nn.Module,
    rows: Sequence[Row],
    filler: int,
    rows_per_pass: int = 128,
    around: Callable[[range], AbstractContextManager[None]] = lambda places: nullcontext(),
) -> list[Said]:
    """What the model says at each row's answer places.

    ``around`` is entered for each forward pass with the places of its rows in ``rows``.
    """
    device = next(model.parameters()).device
    found: list[Said] = []
    for start in range(0, len(rows), rows_per_pass):
        part = rows[start : start + rows_per_pass]
        inputs = {name: value.to(device) for name, value in pad(part, filler).items()}
        with around(range(start, start + len(part))):
            logits = _logits(model, inputs)
        best, losses = logits.argmax(-1).tolist(), _row_losses(logits, inputs["labels"]).tolist()
        found += [
            Said(said[begin - 1 : len(ids) - 1], loss)
            for said, loss, (ids, begin) in zip(best, losses, part, strict=True)
        ]
    return found


def _logits(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """What the model says after every token, shape ``(rows, longest, vocabulary)``."""
    logits: Tensor = model(
        input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
    ).logits
    return logits
