"""What a model answers with exemplars and without, greedily, and how good that is.

A PACIT model says its verdict itself, or has it forced: to the truth, or at random. Sources: Xue et
al. (2024), released ``evaluation.py`` and ``data_processing.py``; greedy decoding as published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import nn

from wardround.client.tasks.base import Record
from wardround.client.tasks.draws import Draws
from wardround.client.tasks.pacit.choosing import Verdicts, choose, say
from wardround.client.tasks.pacit.config import PacitConfig, Way
from wardround.client.tasks.pacit.rows import (
    ANSWER,
    VERDICT,
    WeightedRow,
    count_tokens,
    encode_row,
    pad_rows,
    prefix_ids,
    token_losses,
)
from wardround.client.tasks.pacit.scores import best, exact_match, rouge_l, verdict_accuracy
from wardround.client.tasks.pacit.templates import (
    MARKER,
    Shown,
    Style,
    answer_of,
    closed,
    prompt,
    verdict,
)
from wardround.client.tasks.rows import pad_token_id
from wardround.client.tasks.sampling import continue_rows

ROWS_PER_PASS = 128
# Verdicts on two exemplars that a zero-shot prompt may be answered with at random, as published.
FOUR_VERDICTS = ((True, True), (True, False), (False, True), (False, False))


@dataclass(frozen=True)
class Asked:
    """One question as a model was asked it.

    Attributes:
        record: The row.
        shown: The exemplars in the prompt.
        prompt: Its text.
        forced: The verdict the reply was made to begin with; empty for none.
        reply: What the model said after that.
    """

    record: Record
    shown: tuple[Shown, ...]
    prompt: str
    forced: str
    reply: str = ""

    @property
    def answer(self) -> str:
        """What counts as the answer."""
        return answer_of(self.reply)


def shown_in(record: Record, tokenizer: Any, config: PacitConfig) -> tuple[Shown, ...]:
    """The exemplars of a row's prompt under the study's style."""
    if config.style is Style.ZERO_SHOT:
        return ()
    return choose(
        record.id,
        record.content,
        config.exemplars,
        config.max_source,
        lambda text: count_tokens(tokenizer, text),
    )


def questions(
    records: Sequence[Record], tokenizer: Any, config: PacitConfig, few_shot: bool
) -> list[Asked]:
    """What a model is asked, with exemplars or without."""
    found = []
    for record in records:
        instance = record.content
        shown = shown_in(record, tokenizer, config) if few_shot else ()
        style = config.style if few_shot else Style.ZERO_SHOT
        text = prompt(style, instance.task.definition, shown, instance.input)
        found.append(Asked(record, shown, text, _forced(record, shown, config)))
    return found


def ask(
    model: nn.Module, tokenizer: Any, asked: Sequence[Asked], config: PacitConfig
) -> list[Asked]:
    """The same questions with the model's greedy replies."""
    found: list[Asked] = []
    for start in range(0, len(asked), ROWS_PER_PASS):
        part = asked[start : start + ROWS_PER_PASS]
        rows = [prefix_ids(tokenizer, one.prompt, one.forced, config.max_length) for one in part]
        said = continue_rows(
            model, tokenizer, rows, torch.Generator(), config.max_tokens, temperature=0
        )
        for one, ids in zip(part, said, strict=True):
            reply = tokenizer.decode(ids, skip_special_tokens=True)
            found.append(Asked(one.record, one.shown, one.prompt, one.forced, reply))
    return found


def evaluate_answers(
    model: nn.Module, tokenizer: Any, records: Sequence[Record], config: PacitConfig
) -> dict[str, float]:
    """Scores on instances that may be looked at.

    Returns:
        ``few_`` and ``zero_`` (with exemplars and without): ``rouge_l`` and ``exact`` in [0, 1], of
        all instances and of each category where there are several; for a PACIT model's own verdicts
        ``verdict_accuracy`` and ``format_rate``, the share of replies that reach an answer; and
        mean losses of ``answer`` and ``verdict`` tokens in nats, on targets as trained.
    """
    metrics: dict[str, float] = {}
    for name, few_shot in (("few", True), ("zero", False)):
        if few_shot and config.style is Style.ZERO_SHOT:
            continue
        replies = ask(model, tokenizer, questions(records, tokenizer, config, few_shot), config)
        metrics |= _scores(name, replies)
        if few_shot and config.style is Style.PACIT and config.inference is Way.OWN:
            metrics |= _verdicts(replies)
    return metrics | _losses(model, tokenizer, records, config)


def _forced(record: Record, shown: Sequence[Shown], config: PacitConfig) -> str:
    """The verdict that a PACIT model's reply is made to begin with."""
    if config.style is not Style.PACIT or config.inference is Way.OWN:
        return ""
    draws = Draws(config.exemplars.seed, f"pacit/inference/{record.id}")
    right = [one.right for one in shown]
    if config.inference is Way.FORCED:
        return verdict(right)
    said = say(right, Verdicts.RANDOM, draws) if shown else draws.choice(FOUR_VERDICTS)
    return verdict(said)


def _scores(name: str, replies: Sequence[Asked]) -> dict[str, float]:
    """Mean scores of all replies, and of each category's."""
    groups = {"": list(replies)}
    for one in replies:
        groups.setdefault(one.record.content.task.category, []).append(one)
    if len(groups) == 2:  # everything, and one category that holds everything
        groups = {"": groups[""]}
    found = {}
    for category, group in groups.items():
        suffix = f"_{category.replace('-', '_')}" if category else ""
        for label, score in (("rouge_l", rouge_l), ("exact", exact_match)):
            values = [best(score, one.answer, one.record.content.outputs) for one in group]
            found[f"{name}_{label}{suffix}"] = fmean(values)
    return found


def _verdicts(replies: Sequence[Asked]) -> dict[str, float]:
    """How often the model is right about the exemplars it is shown."""
    judged = [one for one in replies if one.shown]
    if not judged:
        return {}
    right = [verdict_accuracy(one.reply, [shown.right for shown in one.shown]) for one in judged]
    return {
        "verdict_accuracy": fmean(right),
        "format_rate": fmean(MARKER in one.reply for one in judged),
    }


@torch.no_grad()
def _losses(
    model: nn.Module, tokenizer: Any, records: Sequence[Record], config: PacitConfig
) -> dict[str, float]:
    """Mean loss of each kind of token."""
    device = next(model.parameters()).device
    totals: dict[str, list[float]] = {"answer": [0.0, 0], "verdict": [0.0, 0]}
    for start in range(0, len(records), ROWS_PER_PASS):
        part = records[start : start + ROWS_PER_PASS]
        rows = [training_row(record, tokenizer, config) for record in part]
        inputs = {
            name: value.to(device)
            for name, value in pad_rows(rows, pad_token_id(tokenizer), config.weights).items()
        }
        losses, kinds = token_losses(model, inputs), inputs["kinds"][:, 1:]
        for name, kind in (("answer", ANSWER), ("verdict", VERDICT)):
            totals[name][0] += float(losses[kinds == kind].sum())
            totals[name][1] += int((kinds == kind).sum())
    return {f"{name}_loss": total / count for name, (total, count) in totals.items() if count}


def training_row(record: Record, tokenizer: Any, config: PacitConfig) -> WeightedRow:
    """A record as it is learnt from."""
    instance = record.content
    shown = shown_in(record, tokenizer, config)
    said = [one.said for one in shown] if config.style is Style.PACIT else []
    return encode_row(
        tokenizer,
        prompt(config.style, instance.task.definition, shown, instance.input),
        verdict(said),
        closed(_reference(record, config)),
        config.max_length,
    )


def _reference(record: Record, config: PacitConfig) -> str:
    """The output to learn: one drawn from several, as published."""
    draws = Draws(config.exemplars.seed, f"pacit/reference/{record.id}")
    output: str = draws.choice(record.content.outputs)
    return output.strip()
