"""What an instruction record says: a task's definition, its exemplars, one input and its outputs.

Exemplars belong to the task and are shown again and again, in the prompts of many rows. So a record
says whose data they are. Knows nothing of templates, files or models. Source of the schema: Wang et
al. (2022), "Super-NaturalInstructions".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Source(StrEnum):
    """Whose data an exemplar is, from the least to the most delicate."""

    PUBLIC = "public"
    SYNTHETIC = "synthetic"
    PRIVATE = "private"


@dataclass(frozen=True)
class Exemplar:
    """An input with an output that is right, or wrong on purpose.

    Attributes:
        input: What is given.
        output: What is answered.
        source: Whose data both are.
    """

    input: str
    output: str
    source: Source = Source.PRIVATE


@dataclass(frozen=True)
class Instructions:
    """A task: what is asked for, and exemplars to learn it from.

    Attributes:
        name: Of the task.
        definition: What is to be done.
        positives: Exemplars with right outputs.
        negatives: Exemplars with wrong ones.
        category: What evaluation groups the task with; empty for none.
    """

    name: str
    definition: str
    positives: tuple[Exemplar, ...] = ()
    negatives: tuple[Exemplar, ...] = ()
    category: str = ""

    @property
    def most_delicate(self) -> Source:
        """The source of the exemplar that needs most care; public when there are none."""
        order = list(Source)
        sources = [exemplar.source for exemplar in (*self.positives, *self.negatives)]
        return max(sources, key=order.index, default=Source.PUBLIC)


@dataclass(frozen=True)
class Instance:
    """One row of a task.

    Attributes:
        task: What is asked for, with the exemplars that prompts may show.
        input: What is given.
        outputs: What may be answered; one or more.
    """

    task: Instructions
    input: str
    outputs: tuple[str, ...]
