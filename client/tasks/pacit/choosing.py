"""Which exemplars a row shows, in which order, and what is said of them.

Everything follows from the row's own name and a public seed, so no row depends on another. The
published conversion draws once, too. Knows nothing of token ids but how many a text has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from wardround.client.tasks.draws import Draws
from wardround.client.tasks.pacit.records import Exemplar, Instance
from wardround.client.tasks.pacit.templates import Shown, example, head, query


class Verdicts(StrEnum):
    """What is said of an exemplar."""

    TRUE = "ground-truth"
    FLIPPED = "flipped"
    RANDOM = "random"


@dataclass(frozen=True)
class ExemplarSettings:
    """The ``[task.exemplars]`` table.

    Attributes:
        positives: Right exemplars a prompt shows, at most.
        negatives: Wrong ones, at most.
        verdicts: What is said of them.
        seed: Public; draws exemplars and order, and verdicts where they are random.
    """

    positives: int = 1
    negatives: int = 1
    verdicts: Verdicts = Verdicts.TRUE
    seed: int = 42

    def __post_init__(self) -> None:
        for name in ("positives", "negatives"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more")


def choose(
    name: str,
    instance: Instance,
    settings: ExemplarSettings,
    max_tokens: int,
    count: Callable[[str], int],
) -> tuple[Shown, ...]:
    """The exemplars of one row, shuffled.

    Right ones are added first, then wrong ones, each only while definition, exemplars and query
    stay within ``max_tokens``; the first of a kind that does not fit ends that kind. So what is too
    long for a prompt is left out whole, wrong ones before right ones.

    Args:
        name: The row's own.
        instance: The row.
        settings: How many, and what is said of them.
        max_tokens: Of the prompt.
        count: How many tokens a text has.
    """
    task = instance.task
    draws = Draws(settings.seed, f"pacit/exemplars/{name}")
    text = head(task.definition)
    fitting: list[tuple[Exemplar, bool]] = []
    for pool, most, right in (
        (task.positives, settings.positives, True),
        (task.negatives, settings.negatives, False),
    ):
        title = "Positive Example" if right else "Negative Example"
        for number, exemplar in enumerate(draws.sample(pool, min(most, len(pool))), start=1):
            longer = text + example(title, number, exemplar)
            if count(longer + query(instance.input)) > max_tokens:
                break
            text = longer
            fitting.append((exemplar, right))
    order = draws.shuffled(fitting)
    said = say([right for _, right in order], settings.verdicts, draws)
    return tuple(
        Shown(exemplar, right, word) for (exemplar, right), word in zip(order, said, strict=True)
    )


def say(right: Sequence[bool], verdicts: Verdicts, draws: Draws) -> list[bool]:
    """What is said of each exemplar; a random word is a fair coin, for each by itself."""
    if verdicts is Verdicts.RANDOM:
        return [draws.below(2) == 0 for _ in right]
    return [one is (verdicts is Verdicts.TRUE) for one in right]
