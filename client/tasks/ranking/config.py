"""The ``[task]`` table of a ranking study, and what is refused in it because it couples records.

Knows nothing of models. Defaults are the settings that survive clipping; those of the paper are
``score = "probability"``, ``temperature = 0.001``, ``group = 48``, ``ntp_weight = 1``,
``reference_kl_weight = 1``. Source: Zhang et al. (2024), TSARankLLM, released ``sft.sh``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from wardround.client.tasks.base import TaskConfig
from wardround.client.tasks.ranking.generated import WardShape
from wardround.client.tasks.ranking.losses import Loss, Score
from wardround.client.tasks.ranking.metrics import MEASURES, check_measures
from wardround.privacy.errors import PolicyRefused
from wardround.privacy.tables import from_table


class ScorerName(StrEnum):
    """What makes a score out of passage and query."""

    LIKELIHOOD = "likelihood"
    HEAD = "head"


class Negatives(StrEnum):
    """Where a training list's negatives come from."""

    LISTED = "listed"


class Clipped(StrEnum):
    """What is clipped as one."""

    UNIT = "unit"


# Settings of other trainers that would break law 5 or the sensitivity, and why.
REFUSED = {
    ("negatives", "in-batch"): (
        "another record's passages would enter this record's loss, so removing one record would "
        "change the gradients of others; list negatives with the record"
    ),
    ("negatives", "mined"): (
        "mining over the hospital's own collection lets one record decide which negatives others "
        "get; mine in a public collection before training and list them with the record"
    ),
    ("clip", "row"): (
        "the rows of a list share one softmax; clipping each by itself is not the gradient of the "
        "list's loss, and a list of n rows could move the sum by n times the clip norm"
    ),
}


@dataclass(frozen=True)
class PublicLists:
    """How lists are made when a public collection is dealt out.

    Attributes:
        depth: Passages the first stage finds for a probe.
        negatives: Negatives of a training list, half of them found by the first stage, half random.
        probe_share: In percent, queries that become probes when the files name no test split.
    """

    depth: int = 50
    negatives: int = 7
    probe_share: int = 20

    def __post_init__(self) -> None:
        for name in ("depth", "negatives"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if not 1 <= self.probe_share <= 99:
            raise ValueError(f"probe_share is {self.probe_share}; it must be between 1 and 99")


@dataclass(frozen=True)
class RankingConfig:
    """The ``[task]`` table.

    Attributes:
        max_length: Tokens of prompt and query together.
        max_query: Tokens of a query.
        group: Passages of a list that a training step looks at, the positive among them.
        scorer: ``likelihood``, or a linear ``head`` on the last token as a baseline.
        loss: ``listwise``, ``ranknet`` or ``pointwise``.
        score: The scale on which likelihoods are compared.
        temperature: Divides scores before they are compared.
        ntp_weight: Of the next-token term, the positive's query tokens alone.
        reference_kl_weight: Of the difference penalty against the frozen base.
        negatives: ``listed``; everything else couples records and is refused.
        clip: ``unit``; clipping rows of a list is refused.
        measures: What evaluation reports, as ir-measures spells it.
        max_probes: Queries of a public collection to evaluate on.
        generated: How large a generated study is.
        lists: How lists are made from a public collection.
    """

    max_length: int = 256
    max_query: int = 32
    group: int = 8
    scorer: ScorerName = ScorerName.LIKELIHOOD
    loss: Loss = Loss.LISTWISE
    score: Score = Score.LOG_PROBABILITY
    temperature: float = 0.25
    ntp_weight: float = 0.0
    reference_kl_weight: float = 0.0
    negatives: Negatives = Negatives.LISTED
    clip: Clipped = Clipped.UNIT
    measures: tuple[str, ...] = MEASURES
    max_probes: int = 200
    generated: WardShape = field(default_factory=WardShape)
    lists: PublicLists = field(default_factory=PublicLists)

    def __post_init__(self) -> None:
        if not 1 <= self.max_query <= 8192:
            raise ValueError(f"max_query is {self.max_query}; it must be between 1 and 8192")
        if not self.max_query + 16 <= self.max_length <= 32768:
            raise ValueError(
                f"max_length is {self.max_length}; expected {self.max_query + 16} "
                "(max_query and 16) to 32768"
            )
        if not 2 <= self.group <= 1024:
            raise ValueError(f"group is {self.group}; it must be between 2 and 1024")
        if not 1e-4 <= self.temperature <= 1e4:
            raise ValueError(f"temperature is {self.temperature}; it must be 1e-4 to 1e4")
        for name in ("ntp_weight", "reference_kl_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more")
            if getattr(self, name) and self.scorer is ScorerName.HEAD:
                raise ValueError(f"{name} needs scorer 'likelihood': a head says no tokens")
        if self.max_probes < 1:
            raise ValueError(f"max_probes is {self.max_probes}; it must be 1 or more")


def ranking_config(table: TaskConfig) -> RankingConfig:
    """The table, checked.

    Raises:
        PolicyRefused: It asks for something that couples records; says why.
        BadInput: A key or value cannot be used.
    """
    for (name, value), reason in REFUSED.items():
        if table.get(name) == value:
            raise PolicyRefused(f"[task] {name} is {value!r}: {reason}")
    config = from_table(RankingConfig, table, "[task]")
    check_measures(config.measures)
    return config
