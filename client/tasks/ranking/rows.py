"""Passages and queries as rows of token ids, in two blocks: what can be shared, what is scored.

A row is ``[prompt, padding | last prompt token, query, padding]`` under an attention mask, with
positions that count real tokens only. All queries of a batch thus stand in the same columns, and a
prompt's block means the same whether it was computed in this pass or kept from an earlier one.
Source of the prompt: Zhang et al. (2024), "A two-stage adaptation of large language models for text
ranking" (TSARankLLM), section 3 and released code. Knows nothing of units, labels or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

IGNORED = -100
Ids = tuple[int, ...]
Row = tuple[Ids, Ids]


@lru_cache(maxsize=1 << 15)
def encode_passage(tokenizer: Any, passage: str, max_length: int) -> Ids:
    """Token ids of ``Document: passage Query:``, at least two and at most ``max_length``.

    A passage that does not fit loses its end; the words around it stay.
    """
    opening = f"Document: {passage}"
    ids = _without_end(tokenizer(f"{opening} Query:")["input_ids"], tokenizer)
    if len(ids) > max_length:
        closing = max(1, len(ids) - len(_without_end(tokenizer(opening)["input_ids"], tokenizer)))
        ids = [*ids[: max_length - closing], *ids[-closing:]]
    return tuple(ids)


@lru_cache(maxsize=1 << 15)
def encode_query(tokenizer: Any, query: str, max_length: int) -> Ids:
    """Token ids of a query, at least one and at most ``max_length``; it follows the prompt."""
    ids: list[int] = tokenizer(query, add_special_tokens=False)["input_ids"]
    return tuple(ids[:max_length])


def encode(tokenizer: Any, passage: str, query: str, max_length: int, max_query: int) -> Row:
    """Prompt and query that together fit into ``max_length`` tokens; the passage gives way."""
    query_ids = encode_query(tokenizer, query, max_query)
    return encode_passage(tokenizer, passage, max_length - max_query), query_ids


def pad_token_id(tokenizer: Any) -> int:
    """What fills gaps; it is masked everywhere, so any token would do."""
    token = tokenizer.pad_token_id
    return int(token if token is not None else tokenizer.eos_token_id or 0)


def prompt_block(prompts: Sequence[Ids], filler: int) -> tuple[Tensor, Tensor]:
    """All but the last token of each prompt: ids and mask, shape ``(prompts, longest)``."""
    return _padded([prompt[:-1] for prompt in prompts], filler)


def query_block(rows: Sequence[Row], filler: int) -> dict[str, Tensor]:
    """The last prompt token and the query of each row, ready to follow a prompt block.

    Returns:
        ``input_ids``, ``attention_mask``, ``position_ids`` and ``labels`` of shape
        ``(rows, longest query)``: what stands at a place and, in ``labels``, what should follow it.
    """
    input_ids, mask = _padded([(prompt[-1], *query[:-1]) for prompt, query in rows], filler)
    labels, _ = _padded([query for _, query in rows], IGNORED)
    begins = torch.tensor([len(prompt) - 1 for prompt, _ in rows], dtype=torch.long)
    places = begins.unsqueeze(1) + torch.arange(labels.shape[1])
    return {
        "input_ids": input_ids,
        "attention_mask": mask,
        "position_ids": places,
        "labels": labels,
    }


def pad(rows: Sequence[Row], filler: int) -> dict[str, Tensor]:
    """Whole rows, both blocks side by side; ``labels`` cover the second block alone."""
    prompt_ids, prompt_mask = prompt_block([prompt for prompt, _ in rows], filler)
    block = query_block(rows, filler)
    places = torch.arange(prompt_ids.shape[1]).expand_as(prompt_ids)
    # Positions of padding are masked; they only have to be some position the model knows.
    before = {
        "input_ids": prompt_ids,
        "attention_mask": prompt_mask,
        "position_ids": places * prompt_mask,
    }
    both = {name: torch.cat([first, block[name]], dim=1) for name, first in before.items()}
    both["position_ids"] = both["position_ids"] * both["attention_mask"]
    return both | {"labels": block["labels"]}


def _without_end(ids: list[int], tokenizer: Any) -> list[int]:
    """The ids without an end token that the tokenizer may add."""
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids


def _padded(texts: Sequence[Sequence[int]], filler: int) -> tuple[Tensor, Tensor]:
    """Ids of different length, padded on the right, and the mask of what is real."""
    longest = max((len(ids) for ids in texts), default=1)
    rows = [[*ids, *(filler,) * (longest - len(ids))] for ids in texts]
    padded = torch.tensor(rows, dtype=torch.long).view(len(texts), longest)
    length = torch.tensor([len(ids) for ids in texts], dtype=torch.long).unsqueeze(1)
    return padded, (torch.arange(longest) < length).long()
