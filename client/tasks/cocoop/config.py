"""The ``[task]`` and ``[adapter]`` tables of a study that learns prompts.

Names of what may be on a picture are public and the same for all hospitals, whichever of them a
hospital has pictures of. Defaults are CoCoOp's. Sources: Zhou et al. (2022), "Learning to prompt
for vision-language models" (CoOp), section 3; Zhou et al. (2022), "Conditional prompt learning for
vision-language models" (CoCoOp), section 3; their released configurations. Knows no models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from wardround.client.tasks.base import TaskConfig
from wardround.client.tasks.cocoop.images import Normalisation
from wardround.client.tasks.cocoop.world import Camera
from wardround.privacy.tables import from_table


class Protocol(StrEnum):
    """Which names are trained on."""

    BASE_TO_NEW = "base-to-new"
    ALL = "all"


class Method(StrEnum):
    """Whether the prompt's vectors depend on the picture."""

    COOP = "coop"
    COCOOP = "cocoop"


class Position(StrEnum):
    """Where the name stands among the vectors."""

    END = "end"
    MIDDLE = "middle"
    FRONT = "front"


class Condition(StrEnum):
    """What the meta-net sees of a picture; all but ``image`` are controls."""

    IMAGE = "image"
    NOISE = "noise"
    ZERO = "zero"


@dataclass(frozen=True)
class CocoopConfig:
    """The ``[task]`` table.

    Attributes:
        names: What may be on a picture, in the order of labels.
        protocol: ``base-to-new`` trains on the first half of the names and tests on both halves
            apart; ``all`` trains and tests on all.
        shots: Pictures of a name at each hospital that has some, where records are dealt out.
        names_per_hospital: How many names a hospital has pictures of, where records are dealt out;
            0 for all.
        probes_per_name: Public pictures of each name to evaluate on.
        views: Crops of a picture that training sees by turns; 1 is the whole picture alone.
        templates: Of the zero-shot baseline; ``{}`` is where the name goes.
        image: How pixels are normalised.
        camera: How generated pictures differ from those the base was taught.
    """

    names: tuple[str, ...]
    protocol: Protocol = Protocol.BASE_TO_NEW
    shots: int = 16
    names_per_hospital: int = 0
    probes_per_name: int = 20
    views: int = 1
    templates: tuple[str, ...] = ("a photo of a {}.",)
    image: Normalisation = field(default_factory=Normalisation)
    camera: Camera = field(default_factory=Camera)

    def __post_init__(self) -> None:
        if len(self.names) < 2 or not all(name.strip() for name in self.names):
            raise ValueError("names must hold two names or more, none of them empty")
        if len(set(self.names)) != len(self.names):
            raise ValueError("names holds a name twice")
        for name in ("shots", "probes_per_name", "views"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if not 0 <= self.names_per_hospital <= len(self.base):
            raise ValueError(
                f"names_per_hospital is {self.names_per_hospital}; it must be 0 to "
                f"{len(self.base)}, the names that are trained on"
            )
        if not self.templates or not all(text.count("{}") == 1 for text in self.templates):
            raise ValueError("templates must hold texts with one {} each")

    @property
    def base(self) -> tuple[str, ...]:
        """The names that are trained on."""
        return self.names if self.protocol is Protocol.ALL else base_and_new(self.names)[0]

    @property
    def new(self) -> tuple[str, ...]:
        """The names that are only tested on."""
        return () if self.protocol is Protocol.ALL else base_and_new(self.names)[1]


@dataclass(frozen=True)
class PromptConfig:
    """The ``[adapter]`` table.

    Attributes:
        method: ``coop`` learns vectors; ``cocoop`` also a small net that shifts them by picture.
        context: Words whose embeddings the vectors start as; empty for random ones.
        tokens: Number of vectors where ``context`` is empty.
        class_specific: CoOp only: vectors of its own for each name that is trained on.
        position: Where the name stands.
        condition: CoCoOp only: what the net sees.
        reduction: CoCoOp only: how many times narrower than the features the net is inside.
    """

    method: Method = Method.COCOOP
    context: str = "a photo of a"
    tokens: int = 16
    class_specific: bool = False
    position: Position = Position.END
    condition: Condition = Condition.IMAGE
    reduction: int = 16

    def __post_init__(self) -> None:
        for name in ("tokens", "reduction"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if self.method is Method.COCOOP and self.class_specific:
            raise ValueError("class_specific is on; it goes with method 'coop' only")
        if self.method is Method.COOP and self.condition is not Condition.IMAGE:
            raise ValueError(f"condition is {self.condition.value!r}; 'coop' sees no picture")


def base_and_new(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The first half of the names, rounded up, and the rest.

    >>> base_and_new(["a", "b", "c", "d", "e"])
    (('a', 'b', 'c'), ('d', 'e'))
    """
    half = (len(names) + 1) // 2
    return tuple(names[:half]), tuple(names[half:])


def cocoop_config(table: TaskConfig) -> CocoopConfig:
    """The ``[task]`` table, checked; ``BadInput`` names a key or value that cannot be used."""
    return from_table(CocoopConfig, table, "[task]")
