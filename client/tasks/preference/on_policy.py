"""Replies the model itself writes at the hospital, scored and put in place of the recorded ones.

A record keeps its prompt; what is learnt from are the replies. They are written by the model as it
stands, which is noised already, so writing costs nothing; the prompts are private, and every step
that learns from them is charged like any other. Fresh replies are written every ``reuse`` steps
(Tajwar et al. 2024, section 5.1: T). Nothing here outlives the round.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import torch
from torch import nn

from wardround.client.lora import without_adapter
from wardround.client.tasks.base import Record
from wardround.client.tasks.preference.likelihood import likelihoods_of
from wardround.client.tasks.preference.records import Judged
from wardround.client.tasks.preference.rewards import Reward, score_replies
from wardround.client.tasks.sampling import sample_replies

Notebook = MutableMapping[str, tuple[int, Judged]]


class Scorer(StrEnum):
    """Who says what a written reply is worth."""

    OWN = "own"  # [task.reward], which also evaluates
    FEDERATED = "federated"  # [task.reward_model], learnt by the hospitals in a study of its own


@dataclass(frozen=True)
class SamplingSettings:
    """The ``[task.sampling]`` table.

    Attributes:
        share: Of the records of a step, how many get replies the model wrote; 0 is offline, 1 is
            on-policy, anything between is mixed, decided for each record by its own coin.
        replies: Written to each prompt.
        reuse: Steps a record's written replies are used for before new ones are written.
        max_tokens: A reply's longest length.
        temperature: Of the model's distribution.
        reward: Who scores what was written.
    """

    share: float = 0.0
    replies: int = 4
    reuse: int = 1
    max_tokens: int = 64
    temperature: float = 1.0
    reward: Scorer = Scorer.OWN

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share is {self.share}; it must be in [0, 1]")
        for name in ("replies", "reuse", "max_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature is {self.temperature}; it must be greater than 0")


def write_replies(
    model: nn.Module,
    tokenizer: Any,
    units: Sequence[Sequence[Record]],
    sampling: SamplingSettings,
    reward: Reward,
    max_length: int,
    step: int,
    notebook: Notebook,
    generator: torch.Generator,
) -> list[list[Record]]:
    """The same units with some records' replies written by ``model``.

    Args:
        model: The model as it stands.
        tokenizer: Its tokenizer.
        units: The records of this step.
        sampling: How many, how long, how often.
        reward: Scores what was written.
        max_length: Tokens of prompt and reply together.
        step: Number of this step in the round.
        notebook: What was written before in this round, by record; kept up to date.
        generator: Private; coins and tokens.

    Privacy: each record's replies depend on that record, the model and coins alone.
    """
    wanted: list[Record] = []
    for record in (record for unit in units for record in unit):
        written = notebook.get(record.id)
        if written is not None and step - written[0] < sampling.reuse:
            continue
        if float(torch.rand((), generator=generator)) < sampling.share:
            wanted.append(record)
        else:
            notebook[record.id] = (step, record.content)
    if wanted:
        prompts = [record.content.prompt for record in wanted for _ in range(sampling.replies)]
        replies = sample_replies(
            model, tokenizer, prompts, generator, sampling.max_tokens, sampling.temperature
        )
        with without_adapter(model):
            scores = score_replies(reward, model, tokenizer, prompts, replies, max_length)
        texts = list(zip(prompts, replies, strict=True))
        likely = likelihoods_of(model, tokenizer, texts, max_length).tolist()
        for number, record in enumerate(wanted):
            mine = slice(number * sampling.replies, (number + 1) * sampling.replies)
            judged = replace(
                record.content,
                replies=tuple(replies[mine]),
                scores=tuple(scores[mine]),
                reference=(),
                written=tuple(likely[mine]),
            )
            notebook[record.id] = (step, judged)
    return [[replace(record, content=notebook[record.id][1]) for record in unit] for unit in units]
