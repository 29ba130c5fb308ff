"""Who takes part in a step: units by their own coins, and of each unit no more records than agreed.

Positions and records found here say who was chosen and stay at home. Source: Abadi et al. (2016),
algorithm 1, line "take a random sample"; Poisson, because nothing else is accounted for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wardround.client.tasks.base import Record
from wardround.privacy.plan import PrivacyPlan
from wardround.privacy.stream import SecureStream
from wardround.privacy.units import Unit

Units = Sequence[Sequence[Record]]


@dataclass(frozen=True)
class Sample:
    """The records of one step.

    Attributes:
        records: One inner sequence a chosen unit; of a site, one a unit of the task.
        members: Position of each in the data set.
    """

    records: tuple[Sequence[Record], ...]
    members: tuple[int, ...]


def draw(plan: PrivacyPlan, units: Units, stream: SecureStream) -> Sample:
    """The records that enter one step; possibly none, which is as good a sample as any.

    Args:
        plan: Sampler and the most records a unit may bring.
        units: The hospital's records by unit. Where the plan protects the whole site, the site is
            the only unit and these are its records.
        stream: The coins.

    Privacy: the sample is private. Each unit's coin and choice are its own.
    """
    if plan.unit is Unit.SITE:
        present = bool(plan.select(1, stream))
        members = plan.select_records(len(units), stream) if present else []
        return Sample(tuple(map(units.__getitem__, members)), tuple(members))
    members = plan.select(len(units), stream)
    records = []
    for unit in (units[i] for i in members):
        records.append(tuple(unit[i] for i in plan.select_records(len(unit), stream)))
    return Sample(tuple(records), tuple(members))
