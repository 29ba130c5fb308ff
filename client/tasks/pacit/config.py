"""The ``[task]`` table of instruction tuning."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from wardround.client.tasks.base import TaskConfig
from wardround.client.tasks.pacit.choosing import ExemplarSettings
from wardround.client.tasks.pacit.generated import PackShape
from wardround.client.tasks.pacit.records import Source
from wardround.client.tasks.pacit.rows import Weights
from wardround.client.tasks.pacit.templates import Style
from wardround.privacy.tables import from_table


class Way(StrEnum):
    """Where the verdict comes from at inference."""

    OWN = "own"
    FORCED = "forced"
    RANDOM = "random"


@dataclass(frozen=True)
class PacitConfig:
    """The ``[task]`` table.

    Attributes:
        style: What training prompts show: ``zero-shot``, ``icit`` or ``pacit``.
        exemplar_source: The most delicate exemplars a hospital may have in its prompts. With
            ``private``, whole tasks are the only unit that can be protected.
        max_source: Tokens of a prompt, as far as leaving out exemplars can keep to it.
        max_length: Tokens of prompt and target together.
        inference: Where a PACIT model's verdict comes from: its ``own``, ``forced`` to the truth,
            or ``random``.
        max_tokens: A reply's longest length.
        per_task: Instances of each task of a public pack that are trained on.
        max_probes: Instances of a public pack to evaluate on.
        exemplars: How many exemplars a prompt shows, and what is said of them.
        weights: How much each kind of token counts.
        generated: How large a generated study is.
    """

    style: Style = Style.PACIT
    exemplar_source: Source = Source.SYNTHETIC
    max_source: int = 1024
    max_length: int = 1024
    inference: Way = Way.OWN
    max_tokens: int = 128
    per_task: int = 60
    max_probes: int = 200
    exemplars: ExemplarSettings = field(default_factory=ExemplarSettings)
    weights: Weights = field(default_factory=Weights)
    generated: PackShape = field(default_factory=PackShape)

    def __post_init__(self) -> None:
        for name in ("max_source", "max_length"):
            if not 16 <= getattr(self, name) <= 32768:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 16 to 32768")
        for name in ("max_tokens", "per_task", "max_probes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more")


def pacit_config(table: TaskConfig) -> PacitConfig:
    """The table, checked; ``BadInput`` names the first field that cannot be used."""
    return from_table(PacitConfig, table, "[task]")
