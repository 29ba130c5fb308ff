"""Rules of social choice: how long they take, and how firm a winner is under noise.

Times are of one matrix of duels, made of rankings drawn uniformly, in processor time. Firmness is
of the textbook profile of Tennessee's capital (100 voters, four cities): the share of noised looks
in which a rule's single winner is the true one. Knows nothing of hospitals or privacy budgets.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from wardround.strategies.choice.ballots import Floats
from wardround.strategies.choice.rules import DUEL_RULES, winners
from wardround.strategies.choice.stability import stability

# Memphis, Nashville, Knoxville, Chattanooga; entry (i, j): how many voters rank i above j.
TENNESSEE: Floats = np.array(
    [[0, 42, 42, 42], [58, 0, 68, 68], [58, 32, 0, 17], [58, 32, 83, 0]], dtype=np.float64
)
NAMING_ONE = DUEL_RULES[:-1]  # all but the maximal lottery, which names chances
DEVIATIONS = (5.0, 10.0, 20.0, 40.0, 80.0)


def choice_benchmark(
    candidates: int, voters: int, repeats: int, draws: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Milliseconds a rule, and the share of noised looks that name Nashville.

    Args:
        candidates: Of the timed matrix.
        voters: Of the timed matrix.
        repeats: Timed turns; the median is reported.
        draws: Noised looks for each deviation.
        seed: Public.
    """
    generator = torch.Generator().manual_seed(seed)
    wins = uniform_duels(candidates, voters, generator)
    return {
        "times": [{"rule": rule, "ms": _time(rule, wins, repeats)} for rule in DUEL_RULES],
        "tennessee": tennessee_table(DEVIATIONS, draws, generator),
        "settings": {"candidates": candidates, "voters": voters, "draws": draws, "seed": seed},
    }


def uniform_duels(candidates: int, voters: int, generator: torch.Generator) -> Floats:
    """Duels of rankings drawn uniformly, shape ``(candidates, candidates)``."""
    places = torch.rand((voters, candidates), generator=generator).argsort(1)
    above = places[:, :, None] < places[:, None, :]
    wins: Floats = above.sum(0).double().numpy()
    return wins


def tennessee_table(
    deviations: Sequence[float],
    draws: int,
    generator: torch.Generator,
    rules: Sequence[str] = NAMING_ONE,
) -> list[dict[str, Any]]:
    """How often each rule still names Nashville alone, by the noise on a margin."""
    rows = []
    for deviation in deviations:
        row: dict[str, Any] = {"deviation": deviation}
        for rule in rules:
            row[rule] = stability(rule, TENNESSEE, deviation, draws, generator)
        rows.append(row)
    return rows


def _time(rule: str, wins: Floats, repeats: int) -> float:
    """Median processor milliseconds of one call, after one that is not counted."""
    winners(rule, wins)
    turns = []
    for _ in range(repeats):
        started = time.process_time()
        winners(rule, wins)
        turns.append(1000 * (time.process_time() - started))
    return round(statistics.median(turns), 3)
