"""Replies from the model as it stands: batched, cached, and with randomness as an argument.

Prompts are padded on the left so that all rows go on at the same place. Knows nothing of scores,
nor of what stands for a word: ``continue_rows`` takes whatever places the model's forward knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wardround.client.tasks.rows import pad_token_id


@torch.no_grad()
def sample_replies(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[str],
    generator: torch.Generator,
    max_tokens: int,
    temperature: float = 1.0,
    rows_per_pass: int = 128,
) -> list[str]:
    """One reply to each prompt, drawn token by token from the model's own distribution.

    Args:
        model: A causal language model that keeps a cache.
        tokenizer: Its tokenizer; a reply ends at its end token.
        prompts: Texts; empty ones are not allowed.
        generator: Draws the tokens; on the CPU.
        max_tokens: A reply's longest length.
        temperature: 0 takes the likeliest token each time.
        rows_per_pass: Prompts answered at once.

    Raises:
        ValueError: ``max_tokens`` is less than 1 or ``temperature`` negative.
    """
    if max_tokens < 1 or not temperature >= 0:
        raise ValueError(f"max_tokens is {max_tokens}, temperature {temperature}; at least 1 and 0")
    replies: list[str] = []
    for start in range(0, len(prompts), rows_per_pass):
        rows = [prompt_ids(tokenizer, prompt) for prompt in prompts[start : start + rows_per_pass]]
        spoken = continue_rows(model, tokenizer, rows, generator, max_tokens, temperature)
        replies += [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in spoken]
    return replies


def prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """A prompt's tokens without an end token some tokenizers add."""
    ids: list[int] = tokenizer(prompt)["input_ids"]
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids


@torch.no_grad()
def continue_rows(
    model: nn.Module,
    tokenizer: Any,
    rows: Sequence[Sequence[int]],
    generator: torch.Generator,
    max_tokens: int,
    temperature: float,
) -> list[list[int]]:
    """Tokens drawn after each row of token ids, up to its end token.

    ``generator`` is not used at temperature 0.
    """
    device = next(model.parameters()).device
    longest = max(len(row) for row in rows)
    filler = pad_token_id(tokenizer)
    ids = torch.tensor([[filler] * (longest - len(row)) + list(row) for row in rows], device=device)
    mask = torch.tensor(
        [[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device
    )
    cache: Any = None
    done = torch.zeros(len(rows), dtype=torch.bool)
    spoken: list[list[int]] = [[] for _ in rows]
    for _ in range(max_tokens):
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        answer = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        cache = answer.past_key_values
        drawn = _draw(answer.logits[:, -1], generator, temperature)
        done |= drawn == tokenizer.eos_token_id
        for row, token in enumerate(drawn.tolist()):
            if not done[row]:
                spoken[row].append(token)
        if bool(done.all()):
            break
        ids = drawn.to(device)[:, None]
        mask = torch.cat([mask, mask.new_ones((len(rows), 1))], dim=1)
    return spoken


def _draw(logits: Tensor, generator: torch.Generator, temperature: float) -> Tensor:
    """One token a row, shape ``(rows,)``, on the CPU."""
    if temperature == 0:
        return logits.argmax(-1).cpu()
    chances = torch.softmax(logits.double().cpu() / temperature, dim=-1)
    return torch.multinomial(chances, 1, generator=generator).squeeze(1)
