"""What hospitals have released in a run that sends statistics: sums, their noise, declared units.

Everything here is in the run's folder, and so is whatever is made of it: post-processing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from wardround.client.statistics import NAME
from wardround.privacy.errors import BadInput
from wardround.privacy.plan import Mode
from wardround.server.book import read_book
from wardround.strategies.checkpoint import load_checkpoint
from wardround.strategies.tally import COUNT, released
from wardround.study.run_folder import RunFolder


@dataclass(frozen=True)
class Released:
    """One hospital's released statistics.

    Attributes:
        total: Summed over its units, float64.
        deviation: Of the noise on each number of ``total``.
        units: How many units it declares.
    """

    total: Tensor
    deviation: float
    units: int


def released_sums(folder: RunFolder) -> dict[str, Released]:
    """What each hospital has released, by name; several rounds are one mean of less noise.

    Raises:
        BadInput: Nobody has released anything yet.
    """
    state = load_checkpoint(folder.path / "checkpoint").arrays
    declared = {
        answer.hospital: int(answer.report["declared_units"])
        for record in read_book(folder.path / "rounds")
        for answer in record.answers
        if answer.report is not None
    }
    found = {}
    for name, arrays in sorted(released(state).items()):
        plan = folder.study.privacy_plan(folder.facts.noise_multiplier, declared[name])
        bare = plan.mode is Mode.NONE
        deviation = 0.0 if bare else plan.noise_multiplier * plan.clip_norm
        rounds = float(state[f"{COUNT}{name}"])
        total = arrays[NAME][0].double() * plan.expected_units
        found[name] = Released(total, deviation / math.sqrt(rounds), declared[name])
    if not found:
        raise BadInput(f"{folder.path}: no hospital has released anything yet")
    return found
