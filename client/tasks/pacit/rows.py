"""Prompts and targets as rows of token ids, with a weight for each token that is learnt.

A row is prompt, verdict and answer; the prompt is masked. A blank at a border belongs to the token
after it, as byte-level vocabularies spell words, so that a row's text is the template's to the
character and a forced verdict at inference is spelt as it was learnt. Knows nothing of exemplars.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wardround.client.tasks.rows import IGNORED, pad

_VERDICT = re.compile(r"xample \d+ is (correct|wrong)")
TEMPLATE, VERDICT, ANSWER = range(3)


@dataclass(frozen=True)
class Weights:
    """The ``[task.weights]`` table: how much a token of each kind counts in a row's loss.

    Attributes:
        verdict: The words "correct" and "wrong".
        template: The rest of what stands before the answer.
        answer: The answer and the end token.
    """

    verdict: float = 1.0
    template: float = 1.0
    answer: float = 1.0

    def __post_init__(self) -> None:
        for name in ("verdict", "template", "answer"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        if not self.answer:
            raise ValueError("answer is 0; it must be greater than 0")


@dataclass(frozen=True)
class WeightedRow:
    """A row's token ids.

    Attributes:
        ids: All of them.
        start: How many belong to the prompt.
        kinds: Of each token after the prompt: ``TEMPLATE``, ``VERDICT`` or ``ANSWER``.
    """

    ids: tuple[int, ...]
    start: int
    kinds: tuple[int, ...]


@lru_cache(maxsize=1 << 15)
def count_tokens(tokenizer: Any, text: str) -> int:
    """How many tokens a prompt has."""
    return len(tokenizer(text)["input_ids"])


@lru_cache(maxsize=1 << 15)
def prefix_ids(tokenizer: Any, prompt: str, verdict: str, max_length: int) -> tuple[int, ...]:
    """A prompt with a verdict forced on the answer, or none, as generation starts from it."""
    head, forced, _ = _texts(prompt, verdict, "")
    return tuple([*_prompt_ids(tokenizer, head), *_spelt(tokenizer, forced)[0]][-max_length:])


@lru_cache(maxsize=1 << 15)
def encode_row(
    tokenizer: Any, prompt: str, verdict: str, answer: str, max_length: int
) -> WeightedRow:
    """A training row of at most ``max_length`` tokens.

    Nothing is refused for its length, because a refusal would tell about the data: a target keeps
    its first tokens and at most ``max_length - 1``, a prompt its last ones in what room is left.
    """
    asked, forced, answered = _texts(prompt, verdict, answer)
    before, kinds = _spelt(tokenizer, forced)
    said, _ = _spelt(tokenizer, answered)
    if tokenizer.eos_token_id is not None:
        said = [*said, tokenizer.eos_token_id]
    kinds += [ANSWER] * len(said)
    tail = [*before, *said][: max_length - 1]
    head = _prompt_ids(tokenizer, asked)[-(max_length - len(tail)) :]
    return WeightedRow((*head, *tail), len(head), tuple(kinds[: len(tail)]))


def pad_rows(rows: Sequence[WeightedRow], filler: int, weights: Weights) -> dict[str, Tensor]:
    """Rows as tensors, padded on the right; ``weights`` is 0 wherever nothing is learnt."""
    inputs = pad([(row.ids, row.start) for row in rows], filler)
    by_kind = {TEMPLATE: weights.template, VERDICT: weights.verdict, ANSWER: weights.answer}
    weighed = torch.zeros(inputs["input_ids"].shape, dtype=torch.float64)
    kinds = torch.full(inputs["input_ids"].shape, -1)
    for number, row in enumerate(rows):
        place = slice(row.start, len(row.ids))
        weighed[number, place] = torch.tensor([by_kind[kind] for kind in row.kinds]).to(weighed)
        kinds[number, place] = torch.tensor(row.kinds)
    return {**inputs, "weights": weighed, "kinds": kinds}


def token_losses(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """Cross-entropy of each learnt token, 0 elsewhere, shape ``(rows, longest - 1)``.

    In float32, or float64 for such a model.
    """
    logits = model(
        input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
    ).logits[:, :-1]
    following = inputs["labels"][:, 1:]
    rows, places = (following != IGNORED).nonzero(as_tuple=True)
    chosen = logits[rows, places]
    chosen = chosen if chosen.dtype == torch.float64 else chosen.float()
    losses = functional.cross_entropy(chosen, following[rows, places], reduction="none")
    return losses.new_zeros(following.shape).index_put((rows, places), losses)


def row_losses(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """Each row's weighted mean over its own target's tokens, shape ``(rows,)``."""
    losses = token_losses(model, inputs)
    weights = inputs["weights"][:, 1:].to(losses)
    return (losses * weights).sum(1) / weights.sum(1).clamp(min=torch.finfo(losses.dtype).tiny)


def _texts(prompt: str, verdict: str, answer: str) -> tuple[str, str, str]:
    """Prompt, verdict and answer with the blanks between them moved to the front of what follows.

    An absent verdict or answer is empty.
    """
    asked, blank = _split_blank(prompt)
    forced = ""
    if verdict:
        forced, blank = _split_blank(blank + verdict)
    return asked, forced, blank + answer if answer else ""


def _split_blank(text: str) -> tuple[str, str]:
    """The text without blanks at its end, and those blanks."""
    short = text.rstrip(" ")
    return short, text[len(short) :]


def _prompt_ids(tokenizer: Any, text: str) -> list[int]:
    """Ids of how a row begins, without the end token that some tokenizers add."""
    ids: list[int] = tokenizer(text)["input_ids"]
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids


def _spelt(tokenizer: Any, text: str) -> tuple[list[int], list[int]]:
    """Ids without special tokens, and the kind of each: a verdict's word or template.

    The sentence of intent is template altogether: it says nothing that was not said before.
    """
    if not text:
        return [], []
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    words = [match.span(1) for match in _VERDICT.finditer(text.partition("I would")[0])]
    kinds = [
        VERDICT if any(first < end and begin < last for first, last in words) else TEMPLATE
        for begin, end in found["offset_mapping"]
    ]
    return list(found["input_ids"]), kinds
