"""Free-running generation with a cache: transcript and answer as text, then frames until it stops.

One row at a time, greedy, so the same question gives the same answer. Source: Nachmani et al.
(2024), Spectron, section 3.4; the stop rule is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wardround.client.tasks.spectron.model import Parts, encode_speech
from wardround.client.tasks.spectron.sequence import decoder_of, text_head, token_table


@dataclass(frozen=True)
class Limits:
    """Where generation ends at the latest.

    Attributes:
        tokens: Of text.
        steps: Of frames.
    """

    tokens: int = 96
    steps: int = 100

    def __post_init__(self) -> None:
        for name in ("tokens", "steps"):
            if not 1 <= getattr(self, name) <= 10_000:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 to 10000")


@dataclass(frozen=True)
class Spoken:
    """What the model said to one question.

    Attributes:
        ids: Tokens after the first, without the last.
        frames: Scaled frames, shape ``(frames, bins)``; at least one step.
    """

    ids: tuple[int, ...]
    frames: Tensor


@torch.no_grad()
def answer(
    parts: Parts,
    question: Tensor,
    tokenizer: Any,
    limits: Limits,
    oracle: tuple[Tensor, Tensor] | None = None,
) -> Spoken:
    """Listen to one question and answer it.

    Args:
        parts: The model.
        question: Scaled frames, shape ``(frames, bins)``.
        tokenizer: Has the first and the last token of text.
        limits: Where to end.
        oracle: Tokens and frames to feed back instead of the model's own, for tests.
    """
    device = question.device
    frames = torch.tensor([len(question)], device=device)
    states, length = encode_speech(parts, question.unsqueeze(0), frames)
    embed = token_table(parts)
    first = torch.tensor([[tokenizer.bos_token_id]], device=device)
    known = torch.cat([states[:, : int(length)].to(embed.weight), embed(first)], dim=1)
    hidden, cache = _step(parts, known, None)
    said: list[int] = []
    for place in range(limits.tokens):
        token = int(text_head(parts)(hidden[:, -1]).argmax(-1))
        if oracle is not None:
            token = int(oracle[0][place])
        ended = token == tokenizer.eos_token_id or place == limits.tokens - 1
        token = tokenizer.eos_token_id if ended else token
        hidden, cache = _step(parts, embed(torch.tensor([[token]], device=device)), cache)
        if ended:
            break
        said.append(token)
    steps: list[Tensor] = []
    for place in range(limits.steps):
        spoken = parts.post_net(hidden[:, -1:])
        steps.append(spoken[0, 0])
        if oracle is None and float(parts.stop(hidden[:, -1:])) > 0:
            break
        fed = spoken if oracle is None else oracle[1][place].view_as(spoken)
        hidden, cache = _step(parts, parts.pre_net(fed.to(embed.weight)), cache)
    bins = question.shape[1]
    return Spoken(tuple(said), torch.stack(steps).reshape(-1, bins))


def _step(parts: Parts, inputs: Tensor, cache: Any) -> tuple[Tensor, Any]:
    """States of new places, and the cache with them in it."""
    found = decoder_of(parts)(inputs_embeds=inputs, past_key_values=cache, use_cache=True)
    return found.last_hidden_state, found.past_key_values
