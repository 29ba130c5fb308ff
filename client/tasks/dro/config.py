"""The ``[task]`` table of safeguarding."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from wardround.client.pinned import require_pin
from wardround.client.tasks.base import TaskConfig
from wardround.client.tasks.dro.frame import Framing
from wardround.client.tasks.dro.generated import LONG_PROMPT, RequestShape
from wardround.client.tasks.dro.losses import LossWeights
from wardround.privacy.tables import from_table


class Method(StrEnum):
    """What is learnt: a prompt from states, a prompt from replies, or anchors from queries."""

    DRO = "dro"
    VANILLA = "vanilla"
    ANCHORS = "anchors"


@dataclass(frozen=True)
class AnchorSettings:
    """The ``[task.anchors]`` table.

    Attributes:
        folder: An embedded name or a folder at the hospital; needed by method ``dro``.
        sha256: Hash of the anchors in it.
        radius: With method ``anchors``: states longer than this are shortened to it.
    """

    folder: str = ""
    sha256: str = ""
    radius: float = 10.0

    def __post_init__(self) -> None:
        require_pin(self.folder, self.sha256, "anchors")
        if not 0 < self.radius < float("inf"):
            raise ValueError(f"radius is {self.radius}; it must be greater than 0")


@dataclass(frozen=True)
class DroConfig:
    """The ``[task]`` table.

    Attributes:
        method: ``dro``, ``vanilla`` prompt tuning on replies, or ``anchors``.
        prompt: The words the soft prompt begins as; their number is its length.
        max_length: Tokens of a row; longer ones lose their beginning.
        samples: Replies to each query when it is evaluated, or anchors are made.
        max_tokens: A reply's longest length.
        baselines: Whether evaluation also asks without a prompt and under the words.
        max_probes: Queries of a public file to evaluate on.
        frame: Where the prompt stands.
        anchors: What the losses are measured against.
        loss: What each loss counts.
        generated: How large a generated study is.
    """

    method: Method = Method.DRO
    prompt: str = LONG_PROMPT
    max_length: int = 512
    samples: int = 10
    max_tokens: int = 64
    baselines: bool = True
    max_probes: int = 100
    frame: Framing = field(default_factory=Framing)
    anchors: AnchorSettings = field(default_factory=AnchorSettings)
    loss: LossWeights = field(default_factory=LossWeights)
    generated: RequestShape = field(default_factory=RequestShape)

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise ValueError("prompt is empty; a soft prompt begins as words")
        for name in ("max_length", "samples", "max_tokens", "max_probes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if self.method is Method.DRO and not self.anchors.sha256:
            raise ValueError("anchors names none; method 'dro' needs their folder and sha256")


def dro_config(table: TaskConfig) -> DroConfig:
    """The table, checked; ``BadInput`` names the first field that cannot be used."""
    return from_table(DroConfig, table, "[task]")
