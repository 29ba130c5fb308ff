"""The empirical audit: how much epsilon an experiment proves a mechanism to have, at least.

Canaries are put in or left out by fair secret coins, the mechanism runs once, and whoever guesses
the coins too well has shown that epsilon is large. Pure functions of scores and coins; knows
nothing of models, canaries or of how a score was made. Sources: Steinke, Nasr and Jagielski
(2023), "Privacy auditing with one (1) training run", theorem 5.2 and appendix D; Clopper and
Pearson (1934) for proportions; Mann and Whitney (1947) for the area under the curve.

A lower bound can show that a claim is wrong. It can never show that one is right: canaries and
score may simply be too weak.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import bdtrc, betaincinv, gammaln
from torch import Tensor

CONFIDENCE = 0.95
_WIDEST_EPSILON = 64.0  # float64 cannot tell 1/(1+e^-eps) from 1 much beyond 36


@dataclass(frozen=True)
class Guessing:
    """How many coins will be guessed; fixed before anybody looks at a score.

    Attributes:
        canaries: How many coins were thrown.
        joined: The highest scores, guessed to have been put in.
        left_out: The lowest scores, guessed to have been left out.
    """

    canaries: int
    joined: int
    left_out: int

    def __post_init__(self) -> None:
        if self.canaries < 1:
            raise ValueError(f"canaries is {self.canaries}; it must be 1 or more")
        for name in ("joined", "left_out"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        if not 1 <= self.guesses <= self.canaries:
            raise ValueError(
                f"joined and left_out are {self.guesses} together; "
                f"they must lie between 1 and canaries, {self.canaries}"
            )

    @property
    def guesses(self) -> int:
        """How many coins are guessed; the others are passed over."""
        return self.joined + self.left_out

    def count_right(self, scores: Tensor, coins: Tensor) -> int:
        """How many guesses are right.

        Args:
            scores: Shape ``(canaries,)``, higher for a canary that seems to have been put in.
            coins: Shape ``(canaries,)``, true where it was.
        """
        shape = (self.canaries,)
        if scores.shape != shape or coins.shape != shape:
            raise ValueError(
                f"scores and coins have shapes {tuple(scores.shape)} and {tuple(coins.shape)}; "
                f"both must be {shape}"
            )
        order = scores.argsort(descending=True)
        put_in = coins.bool()[order]
        lowest = put_in[self.canaries - self.left_out :]
        return int(put_in[: self.joined].sum()) + int((~lowest).sum())


def one_run_epsilon(
    guessing: Guessing, right: int, delta: float, confidence: float = CONFIDENCE
) -> float:
    """The least epsilon that this many right guesses are compatible with.

    Args:
        guessing: Canaries and guesses, fixed beforehand.
        right: How many guesses were right.
        delta: Of the (epsilon, delta) that is tested.
        confidence: Chance that the bound stays below the true epsilon, whatever the mechanism.

    Returns:
        0 when the guesses are no better than luck.

    >>> round(one_run_epsilon(Guessing(1000, 50, 50), 100, 1e-5), 4)
    3.4654
    """
    if not 0 <= right <= guessing.guesses:
        raise ValueError(f"right is {right}; it must lie between 0 and {guessing.guesses}")
    if not 0 <= delta < 1:
        raise ValueError(f"delta is {delta}; it must lie in [0, 1)")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; it must lie strictly between 0 and 1")
    enough = 1 - confidence
    low, high = 0.0, _WIDEST_EPSILON
    if chance_of_right(guessing, right, low, delta) >= enough:
        return 0.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        if chance_of_right(guessing, right, middle, delta) < enough:
            low = middle
        else:
            high = middle
    return low


def chance_of_right(guessing: Guessing, right: int, epsilon: float, delta: float) -> float:
    """The most likely any (epsilon, delta) mechanism makes that many right guesses or more.

    With p = 1/(1 + e^-epsilon), X ~ Binomial(guesses, p), v right guesses and m canaries:
    P[X >= v] + 2 m delta max_i P[v > X >= v - i] / i.
    """
    guesses, probability = guessing.guesses, 1 / (1 + math.exp(-epsilon))
    if right == 0:
        return 1.0
    steps = np.arange(1, right + 1)
    below = np.cumsum(_binomial(right - steps, guesses, probability))
    excess = float((below / steps).max())
    at_least = float(bdtrc(right - 1, guesses, probability))
    return min(1.0, at_least + 2 * guessing.canaries * delta * excess)


def _binomial(successes: Any, trials: int, probability: float) -> Any:
    """P[X = successes] for X ~ Binomial(trials, probability), probability in (0, 1]."""
    failures = trials - successes
    ways = gammaln(trials + 1) - gammaln(successes + 1) - gammaln(failures + 1)
    if probability == 1.0:
        return np.where(failures == 0, 1.0, 0.0)
    logarithms = successes * math.log(probability) + failures * math.log1p(-probability)
    return np.exp(ways + logarithms)


def clopper_pearson(
    successes: int, trials: int, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """The exact two-sided interval for a proportion, from independent trials.

    >>> low, high = clopper_pearson(0, 10)
    >>> (round(low, 4), round(high, 4))
    (0.0, 0.3085)
    """
    if not (trials >= 1 and 0 <= successes <= trials):
        raise ValueError(f"successes is {successes}; it must lie between 0 and trials, {trials}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; it must lie strictly between 0 and 1")
    tail = (1 - confidence) / 2
    failures = trials - successes
    low = 0.0 if successes == 0 else float(betaincinv(successes, failures + 1, tail))
    high = 1.0 if failures == 0 else float(betaincinv(successes + 1, failures, 1 - tail))
    return low, high


def area_under_curve(joined: Tensor, left_out: Tensor) -> float:
    """Chance that a score of one that was put in is the higher of two; ties count one half.

    Args:
        joined: Scores of those put in, shape ``(a,)``.
        left_out: Scores of those left out, shape ``(b,)``.
    """
    if not (joined.numel() and left_out.numel()):
        raise ValueError("an area under the curve needs a score on either side")
    against = left_out.double().sort().values
    ours = joined.double().contiguous()
    below = torch.searchsorted(against, ours, right=False)
    not_above = torch.searchsorted(against, ours, right=True)
    return float((below + not_above).double().mean()) / (2 * against.numel())
