"""The published prompts and targets, character by character.

Zero-shot shows the definition and the query; ICIT shows exemplars under "Positive Example" and
"Negative Example"; PACIT shows the same ones without labels, in a shuffled order, and has the
target state which are correct and which wrong, then one fixed sentence, then the answer. Source:
Xue et al. (2024), "PACIT", released ``ni_collator.py``. The sentence of intent follows the words of
the verdict there, whichever they are; so it does here.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from wardround.client.tasks.pacit.records import Exemplar

MARKER = "The output: "
_INTENTS = {
    (True, True): "I would avoid these wrong examples, and learn from these correct examples. ",
    (True, False): "I would learn from these correct examples. ",
    (False, True): "I would avoid these wrong examples. ",
}


class Style(StrEnum):
    """What a prompt shows."""

    ZERO_SHOT = "zero-shot"
    ICIT = "icit"
    PACIT = "pacit"


@dataclass(frozen=True)
class Shown:
    """An exemplar in a prompt.

    Attributes:
        exemplar: Input and output.
        right: Whether its output is right.
        said: Whether it is called right: the truth, its opposite, or a coin.
    """

    exemplar: Exemplar
    right: bool
    said: bool


def closed(text: str) -> str:
    """The text with a full stop, unless it ends in punctuation."""
    return text if text and text[-1] in string.punctuation else text + "."


def head(definition: str) -> str:
    """How every prompt begins."""
    return closed(f"Definition: {definition.strip()}") + "\n\n"


def query(given: str) -> str:
    """How every prompt ends."""
    return closed(f"Now complete the following example -\nInput: {given.strip()}") + "\nOutput: "


def example(title: str, number: int, exemplar: Exemplar) -> str:
    """One exemplar as prompts show it."""
    given = closed(f" Input: {exemplar.input.strip()}")
    answered = closed(f" Output: {exemplar.output.strip()}")
    return f" {title} {number} -\n{given}\n{answered}\n\n"


def prompt(style: Style, definition: str, shown: Sequence[Shown], given: str) -> str:
    """The whole prompt.

    Args:
        style: Which template.
        definition: The task's.
        shown: Exemplars in the order of PACIT; ICIT puts the right ones first, as published.
        given: The query's input.
    """
    examples: list[str] = []
    if style is Style.PACIT:
        examples = [example("Example", n, one.exemplar) for n, one in enumerate(shown, start=1)]
    elif style is Style.ICIT:
        for kind in (True, False):
            for number, one in enumerate((one for one in shown if one.right is kind), start=1):
                title = "Positive Example" if one.said else "Negative Example"
                examples.append(example(title, number, one.exemplar))
    return head(definition) + "".join(examples) + query(given)


def verdict(said: Sequence[bool]) -> str:
    """What a PACIT target says before the answer; nothing where no exemplar is shown.

    >>> verdict([False, True])[:48]
    ' Example 1 is wrong, and example 2 is correct. I'
    """
    if not said:
        return ""
    words = ["correct" if right else "wrong" for right in said]
    parts = [f" Example 1 is {words[0]}, "]
    parts += [f"example {n} is {word}, " for n, word in enumerate(words[1:-1], start=2)]
    if len(words) > 1:
        parts.append(f"and example {len(words)} is {words[-1]}. ")
    return "".join(parts) + _INTENTS[any(said), not all(said)] + MARKER


def answer_of(text: str) -> str:
    """What a target or a reply answers: the text after the last marker, or all of it."""
    return text.rpartition(MARKER)[2] if MARKER in text else text
