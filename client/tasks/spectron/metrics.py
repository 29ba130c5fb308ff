"""Scores of speech and its text: word errors, answers that occur, likeness of voices.

``voice_likeness`` compares means and deviations of mel bins; it stands in for a speaker encoder,
which would need downloaded weights, and must not be quoted as speaker similarity.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from wardround.client.tasks.spectron.mel import Floats


def words(text: str) -> list[str]:
    """A text's words in lower case, without punctuation."""
    return re.findall(r"[\w']+", text.lower())


def word_error_rate(wanted: Sequence[str], found: Sequence[str]) -> float:
    """Insertions, deletions and substitutions over all texts, per word that was wanted."""
    errors = total = 0
    for one, other in zip(wanted, found, strict=True):
        reference = words(one)
        errors += _distance(reference, words(other))
        total += len(reference)
    return errors / max(1, total)


def answers_match(wanted: str, found: str) -> bool:
    """Whether the wanted words occur in a row in what was said."""
    needle, hay = words(wanted), words(found)
    places = range(len(hay) - len(needle) + 1)
    return bool(needle) and any(hay[place : place + len(needle)] == needle for place in places)


def voice_likeness(one: Floats, other: Floats) -> float:
    """Cosine of two spectrograms' mean and deviation by bin, taken over the frames with sound."""
    a, b = (np.concatenate([x.mean(0), x.std(0)]) for x in (one, other))
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / max(1e-12, float(np.linalg.norm(a) * np.linalg.norm(b))))


def _distance(one: Sequence[str], other: Sequence[str]) -> int:
    """Levenshtein distance of words."""
    row = list(range(len(other) + 1))
    for place, word in enumerate(one, start=1):
        before, row[0] = row[0], place
        for column, its in enumerate(other, start=1):
            cost = before + (word != its)
            before = row[column]
            row[column] = min(row[column] + 1, row[column - 1] + 1, cost)
    return row[-1]
