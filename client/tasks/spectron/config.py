"""The ``[task]`` table of a study of spoken exchanges."""

from __future__ import annotations

from dataclasses import dataclass, field

from wardround.client.tasks.base import TaskConfig
from wardround.client.tasks.spectron.generated import WardShape
from wardround.client.tasks.spectron.generation import Limits
from wardround.client.tasks.spectron.sequence import Weights
from wardround.privacy.tables import from_table


@dataclass(frozen=True)
class SpectronTaskConfig:
    """The ``[task]`` table.

    Attributes:
        max_utterances: Exchanges of one unit that a step looks at, chosen by a hash of the record.
        max_question_s: A question's first seconds that are listened to.
        max_answer_s: An answer's first seconds that are learnt.
        max_text: Tokens of transcript and answer together.
        weights: How the loss's parts are added up.
        limits: Where generation ends at the latest.
        generated: How large a made-up study is.
    """

    max_utterances: int = 4
    max_question_s: float = 10.0
    max_answer_s: float = 10.0
    max_text: int = 192
    weights: Weights = field(default_factory=Weights)
    limits: Limits = field(default_factory=Limits)
    generated: WardShape = field(default_factory=WardShape)

    def __post_init__(self) -> None:
        if not 1 <= self.max_utterances <= 4096:
            raise ValueError(f"max_utterances is {self.max_utterances}; it must be 1 to 4096")
        for name in ("max_question_s", "max_answer_s"):
            if not 0.1 <= getattr(self, name) <= 120:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0.1 to 120 seconds")
        if not 4 <= self.max_text <= 8192:
            raise ValueError(f"max_text is {self.max_text}; it must be 4 to 8192")


def spectron_config(table: TaskConfig) -> SpectronTaskConfig:
    """The table, checked; ``BadInput`` names the first field that cannot be used."""
    return from_table(SpectronTaskConfig, table, "[task]")
