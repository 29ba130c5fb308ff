"""What an answer is worth: ROUGE-L, exact match, and whether a verdict is right.

Sources: Lin (2004), "ROUGE", section 3, the F-measure of the longest common subsequence; texts are
read as the ``rouge_score`` package does (lower case, letters and digits), but words are not
stemmed. Exact match is SuperNI's: lower case, no punctuation, single blanks.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence

_WORD = re.compile(r"[a-z0-9]+")
_VERDICT = re.compile(r"[Ee]xample (\d+) is (correct|wrong)")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def rouge_l(said: str, wanted: str) -> float:
    """F-measure of the longest common subsequence of words, in [0, 1].

    >>> round(rouge_l("a b c d", "a c d"), 6)
    0.857143
    """
    ours, theirs = _WORD.findall(said.lower()), _WORD.findall(wanted.lower())
    common = _common(ours, theirs)
    if not common:
        return 0.0
    precision, recall = common / len(ours), common / len(theirs)
    return 2 * precision * recall / (precision + recall)


def exact_match(said: str, wanted: str) -> float:
    """1 where both are the same but for case, punctuation and blanks."""
    return float(_plain(said) == _plain(wanted))


def best(score: Callable[[str, str], float], said: str, outputs: Sequence[str]) -> float:
    """The score against whichever output fits best."""
    return max(score(said, wanted) for wanted in outputs)


def verdict_accuracy(reply: str, right: Sequence[bool]) -> float:
    """Share of the exemplars whose verdict a reply states rightly; an unstated one is wrong.

    Args:
        reply: What the model said.
        right: Whether each exemplar's output is right; one at least.
    """
    stated = {int(number): word == "correct" for number, word in _VERDICT.findall(reply)}
    return sum(stated.get(n) is one for n, one in enumerate(right, start=1)) / len(right)


def _common(ours: Sequence[str], theirs: Sequence[str]) -> int:
    """Length of the longest common subsequence, a row of the table at a time."""
    row = [0] * (len(theirs) + 1)
    for word in ours:
        above = 0
        for place, other in enumerate(theirs, start=1):
            kept = row[place]
            row[place] = above + 1 if word == other else max(kept, row[place - 1])
            above = kept
    return row[-1]


def _plain(text: str) -> str:
    """Lower case, no punctuation, single blanks."""
    return " ".join(text.lower().translate(_NO_PUNCTUATION).split())
