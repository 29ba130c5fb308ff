"""Hospitals by the thousand in one process: what one more costs in time and memory.

One frozen base for all, and for each hospital its own policy, durable ledger, key, noise and
signatures: the real path on a tiny task. Every size runs in a fresh process, so that its peak
memory is its own.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from multiprocessing import get_context
from typing import Any

import torch

from wardround.privacy.errors import BadInput
from wardround.study.bench.rivals import RIVALS_TASKS, tiny_rounds
from wardround.study.runner import peak_memory

SIZES = (4, 16, 64, 256, 1000)
ROUNDS = 3
MOST_MEMORY_BYTES = 4 * 2**30
MOST_SPREAD = 0.2


def scale_benchmark(
    sizes: Sequence[int] = SIZES, say: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Peak memory and time of a hospital's round for each number of hospitals.

    Args:
        sizes: Numbers of hospitals.
        say: Told what is being measured.

    Raises:
        BadInput: No sizes, or one that is not a number of hospitals.
    """
    if not sizes or any(size < 1 for size in sizes):
        raise BadInput(f"--hospitals is {list(sizes)}; expected numbers of 1 or more")
    found = {}
    for size in sizes:
        say(f"{size} hospitals, {ROUNDS} rounds")
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
            found[str(size)] = alone.submit(_one_size, size).result()
    clocks = {
        clock: [one[f"{clock}_ms_per_hospital_round"] for one in found.values()]
        for clock in ("wall", "processor")
    }
    return {
        "hospitals": found,
        "flatness": {clock: _spread(values) for clock, values in clocks.items()},
        "peak_memory_bytes": max(one["peak_memory_bytes"] for one in found.values()),
        "settings": {
            **{k: v for k, v in asdict(RIVALS_TASKS["B"]).items() if k != "hospitals"},
            "rounds": ROUNDS,
            "load_average": [round(load, 2) for load in os.getloadavg()],
            "targets": {"memory_bytes": MOST_MEMORY_BYTES, "spread": MOST_SPREAD},
        },
    }


def _one_size(hospitals: int) -> dict[str, float]:
    """A study with this many hospitals, in the process that runs this."""
    torch.set_num_threads(1)
    took = tiny_rounds(replace(RIVALS_TASKS["B"], hospitals=hospitals), ROUNDS)
    wall = statistics.median(round_.wall_s for round_ in took)
    processor = statistics.median(round_.processor_s for round_ in took)
    return {
        "wall_ms_per_hospital_round": round(1e3 * wall / hospitals, 3),
        "processor_ms_per_hospital_round": round(1e3 * processor / hospitals, 3),
        "peak_memory_bytes": peak_memory(),
    }


def _spread(values: Sequence[float]) -> float:
    """How far the farthest size lies from the median of all sizes, as a share of it."""
    middle = statistics.median(values)
    return round(max(abs(value / middle - 1) for value in values), 4)
