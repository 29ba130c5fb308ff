"""How firm a collective choice is under the noise that was added: resample it and look again.

The noise's size is public, so this costs no privacy. Knows nothing of how the noise came about.
"""

from __future__ import annotations

import numpy as np
import torch

from wardround.strategies.choice.ballots import Floats
from wardround.strategies.choice.pairwise import Winners, margins
from wardround.strategies.choice.rules import winners


def add_margin_noise(wins: Floats, deviation: float, generator: torch.Generator) -> Floats:
    """Wins whose margins carry fresh Gaussian noise of this standard deviation.

    The upper triangle is drawn and mirrored with its sign, so margins stay antisymmetric.
    """
    noise = torch.randn(wins.shape, generator=generator, dtype=torch.float64).numpy() * deviation
    upper = np.triu(noise, 1)
    noised: Floats = (margins(wins) + upper - upper.T) / 2
    return noised


def stability(
    rule: str, wins: Floats, deviation: float, draws: int, generator: torch.Generator
) -> float:
    """The share of draws in which ``rule`` gives exactly the winners it gives now.

    Args:
        rule: Name of a rule on duels.
        wins: Duels as published, noise included.
        deviation: Standard deviation of the noise on one margin.
        draws: How often noise is drawn again.
        generator: Public randomness.

    Raises:
        ValueError: ``draws`` is less than 1 or ``deviation`` is negative.
    """
    if draws < 1 or not deviation >= 0:
        raise ValueError(f"draws is {draws} and deviation {deviation}; at least 1 and 0")
    published: Winners = winners(rule, wins)
    again = (
        winners(rule, add_margin_noise(wins, deviation, generator)) == published
        for _ in range(draws)
    )
    return sum(again) / draws


def pair_stability(wins: Floats, deviation: float) -> Floats:
    """Entry (i, j): the probability that i still beats j under fresh noise of this deviation.

    In closed form: the normal distribution function of the margin in units of the deviation.
    """
    margin = margins(wins)
    if deviation == 0:
        sure: Floats = (np.sign(margin) + 1) / 2
        return sure
    chance: Floats = torch.special.ndtr(torch.from_numpy(margin / deviation)).numpy()
    return chance
