"""When a study ends before its last round: a score on public probes, and how far it must get.

The rule sees the scores of a released model on public probes and nothing else. Every update in that
model was clipped, noised and charged before, so the decision is post-processing: it costs nothing
and tells nothing new. It may not see losses at hospitals, which would be releases of their own.
Knows nothing of models, tasks or rounds. Privacy: see "A study that stops early" in
``docs/privacy.md`` for what a stopped study may claim.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from wardround.privacy.errors import BadInput
from wardround.privacy.tables import nearest


@dataclass(frozen=True)
class StopRule:
    """``[stop]``: which score ends a study, once it has come so far.

    Attributes:
        score: Name of a score on the public probes, as the task calls it.
        at_least: Ends the study when the score is this or more.
        at_most: Ends the study when the score is this or less.
    """

    score: str
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        if not self.score:
            raise ValueError("score is empty; name a score of the public probes")
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("give either at_least or at_most, not both and not neither")
        for name in ("at_least", "at_most"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise ValueError(f"{name} is {value}; it must be a finite number")

    def reason(self, scores: Mapping[str, float]) -> str:
        """Why the study ends after a round with these scores; empty when it goes on.

        A round whose scores were not looked at has none, and ends nothing.

        >>> StopRule("exact.seen", at_least=0.9).reason({"exact.seen": 0.95})
        'exact.seen is 0.95; the study stops at 0.9 or more'
        """
        value = scores.get(self.score)
        if value is None:
            return ""
        if self.at_least is not None:
            met, bound = value >= self.at_least, f"{self.at_least:g} or more"
        else:
            assert self.at_most is not None
            met, bound = value <= self.at_most, f"{self.at_most:g} or less"
        return f"{self.score} is {value:.4g}; the study stops at {bound}" if met else ""

    def check(self, before: Mapping[str, float], where: str) -> None:
        """Refuse a rule that the scores of the untouched base show to be useless.

        Raises:
            BadInput: There is no such score, or the untouched base has come that far already.
        """
        if self.score not in before:
            hint = nearest(self.score, list(before))
            raise BadInput(f"{where} score is {self.score!r}; the probes have no such score{hint}")
        if reason := self.reason(before):
            raise BadInput(f"{where} {reason}, and the untouched base has come so far already")
