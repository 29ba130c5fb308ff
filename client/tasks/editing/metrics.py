"""Efficacy, generality and locality of edits, from token ids alone.

All are teacher-forced: what a model says at each answer place, given the right tokens before it.
Fluency alone looks at a text the model wrote by itself. Source: Xu et al. (2024), "Editing factual
knowledge and explanatory ability of medical LLMs", the released evaluation code.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence


def token_accuracy(predicted: Sequence[int], target: Sequence[int]) -> float:
    """The share of answer places where the model's first choice is the wanted token.

    This is efficacy on an edit's own prompt and generality on a rephrased one.

    Raises:
        ValueError: The sequences differ in length or are empty.

    >>> token_accuracy([5, 7, 9], [5, 8, 9])
    0.6666666666666666
    """
    if not target or len(predicted) != len(target):
        raise ValueError(f"{len(predicted)} predictions for {len(target)} answer tokens")
    return sum(p == t for p, t in zip(predicted, target, strict=True)) / len(target)


def exact_match(predicted: Sequence[int], target: Sequence[int]) -> float:
    """1.0 when every token of the answer is the model's first choice, else 0.0."""
    return float(token_accuracy(predicted, target) == 1.0)


def likelihood(loss: float) -> float:
    """How probable an answer is, a token, on geometric average: e to the minus its mean loss.

    A model that has come apart (a loss that is not a number) gives no answer at all.

    >>> round(likelihood(0.15), 2)
    0.86
    """
    return 0.0 if math.isnan(loss) else math.exp(-loss)


def locality(before: Sequence[int], after: Sequence[int]) -> float:
    """The share of places where an edited model still says what it said before, right or wrong."""
    return token_accuracy(after, before)


def fluency(text: str) -> float:
    """How far a text is from repeating itself: (2/3 H2 + 4/3 H3) / 2, in bits.

    The released code splits words with nltk; here a word is a run of letters and digits, and any
    other sign is one of its own.

    >>> fluency("no no no no no")
    0.0
    >>> round(fluency("a b c d e"), 4)
    1.7233
    """
    words = re.findall(r"\w+|[^\w\s]", text)
    return (2 / 3 * ngram_entropy(words, 2) + 4 / 3 * ngram_entropy(words, 3)) / 2


def ngram_entropy(words: Sequence[str], length: int) -> float:
    """Entropy in bits of the n-grams' frequencies; 0 when there are none."""
    grams = Counter(tuple(words[at : at + length]) for at in range(len(words) - length + 1))
    total = sum(grams.values())
    return -sum(n / total * math.log2(n / total) for n in grams.values()) + 0.0


def published_average(
    efficacy: float, generality: float | None, localities: Mapping[str, float]
) -> float:
    """The benchmark's summary: half for the edit, half for what it left alone.

    Args:
        efficacy: Mean over edits.
        generality: Mean over edits; ``None`` when no rephrased prompt exists.
        localities: Mean by kind, at least one.

    >>> published_average(1.0, 0.5, {"textual": 1.0, "structural": 0.5})
    0.75
    """
    edit = efficacy if generality is None else (efficacy + generality) / 2
    return (edit + mean(list(localities.values()))) / 2


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean of at least one value."""
    return sum(values) / len(values)
