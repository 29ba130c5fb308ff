"""What a preference record says: a prompt, replies to it, and how good each was found.

A pair is two replies with scores 1 and 0. Knows nothing of files or models.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Judged:
    """Replies to one prompt with their scores, in the order they were given.

    Attributes:
        prompt: What was asked; a conversation as one text, ending where the reply begins.
        replies: One or more replies.
        scores: One finite number a reply, higher is better.
        written: How likely each reply was to the model that wrote it, as a log-likelihood; empty
            for replies that no model wrote here.
        reference: How likely each reply is to the reference, likewise; empty where it is to be
            asked.
    """

    prompt: str
    replies: tuple[str, ...]
    scores: tuple[float, ...]
    written: tuple[float, ...] = ()
    reference: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.replies:
            raise ValueError("replies is empty; one or more are needed")
        if len(self.replies) != len(self.scores):
            raise ValueError(f"{len(self.replies)} replies but {len(self.scores)} scores")
        for found in (self.written, self.reference):
            if found and len(found) != len(self.replies):
                raise ValueError(f"{len(self.replies)} replies but {len(found)} likelihoods")
        if not all(map(math.isfinite, (*self.scores, *self.written, *self.reference))):
            raise ValueError("a score or likelihood is not a finite number")

    @property
    def best(self) -> int:
        """Position of the highest score; the first of equals."""
        return max(range(len(self.scores)), key=lambda i: (self.scores[i], -i))

    @property
    def worst(self) -> int:
        """Position of the lowest score; the last of equals."""
        return min(range(len(self.scores)), key=lambda i: (self.scores[i], -i))

    @property
    def gap(self) -> float:
        """How far apart best and worst are."""
        return max(self.scores) - min(self.scores)
