"""Where a prompt's subject stands among its tokens, and which words a bare question is about.

Training records name their subject. A query does not, so it is looked for: first among public
names, then by its spelling. A wrong guess blurs other words and gives another scale set, never an
error. Knows tokenizers; nothing of models.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

_WORD = re.compile(r"[^\W_][\w'-]*")


@lru_cache(maxsize=1 << 15)
def place_subject(
    tokenizer: Any, prompt: str, subject: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A prompt's token ids, and the places of the tokens its subject reaches into.

    The subject's first occurrence counts. No places when it does not occur.
    """
    found = tokenizer(prompt, return_offsets_mapping=True)
    ids = list(found["input_ids"])
    if len(ids) > 1 and ids[-1] == tokenizer.eos_token_id:
        ids = ids[:-1]
    begin = prompt.find(subject)
    if begin < 0 or not subject:
        return tuple(ids), ()
    end = begin + len(subject)
    places = tuple(
        place
        for place, (first, last) in enumerate(found["offset_mapping"][: len(ids)])
        if first < end and last > begin and last > first
    )
    return tuple(ids), places


def find_subject(prompt: str, known: Iterable[str]) -> str:
    """What a prompt is most likely about.

    Args:
        prompt: A question or the beginning of a sentence.
        known: Public names, such as a drug dictionary; the longest that occurs wins.

    Returns:
        A known name; else the longest run of capitalised words after the first word; else the
        longest word; the whole prompt when it has none.

    >>> find_subject("What disease does Valproic Acid treat?", ())
    'Valproic Acid'
    """
    named = [name for name in known if name and name in prompt]
    if named:
        return max(named, key=len)
    words = list(_WORD.finditer(prompt))
    if not words:
        return prompt
    runs: list[tuple[int, int]] = []
    for number, word in enumerate(words[1:], 1):
        if not any(letter.isupper() for letter in word.group()):
            continue
        joined = runs and prompt[runs[-1][1] : word.start()].isspace() and number > 1
        if joined:
            runs[-1] = (runs[-1][0], word.end())
        else:
            runs.append((word.start(), word.end()))
    if runs:
        begin, end = max(runs, key=lambda run: run[1] - run[0])
        return prompt[begin:end]
    return max((word.group() for word in words), key=len)
