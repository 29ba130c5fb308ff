"""A hospital's records as a plan asks for them: read by the task, grouped by who is protected.

What is wrong with a record stays in the hospital's log; a refusal says only that something is.
Knows nothing of models, ledgers or who asks.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from wardround.client.hospital import Hospital, group_units, share
from wardround.client.tasks.base import Record, grouping_unit
from wardround.client.tasks.registry import find_task
from wardround.privacy.errors import BadInput
from wardround.privacy.plan import RoundPlan
from wardround.privacy.signing import canonical
from wardround.privacy.units import Unit

log = logging.getLogger("wardround.custodian")


class RecordRoom:
    """The records of one hospital, read when a task first asks for them."""

    def __init__(self, hospital: Hospital) -> None:
        self._hospital = hospital
        self._records: tuple[bytes, list[Record]] | None = None
        self._units: dict[Unit, Sequence[Sequence[Record]]] = {}

    def units(self, plan: RoundPlan) -> Sequence[Sequence[Record]]:
        """The records, grouped once by the unit the plan protects.

        A whole site is one unit whatever the records say; its records come grouped as the task
        prefers.

        Raises:
            BadInput: A record does not say who owns it; which one stays in the hospital's log.
        """
        records, kind = self._load(plan), grouped_by(plan)
        try:
            if kind not in self._units:
                self._units[kind] = group_units(records, kind)
            return self._units[kind]
        except BadInput as error:
            log.error("records unusable reason=%(reason)s", {"reason": str(error)})
            raise BadInput(f"some record names no {kind}; the hospital's log says which") from error

    def _load(self, plan: RoundPlan) -> list[Record]:
        """The records, read once per task and settings.

        Raises:
            BadInput: They cannot be read; what is wrong with them stays in the hospital's log.
        """
        key = canonical({"task": plan.task, "config": plan.task_config})
        if self._records is None or self._records[0] != key:
            task = find_task(plan.task)
            task.check(plan.task_config)
            try:
                records = task.load(self._hospital.records, plan.task_config)
            except BadInput as error:
                said = self._without_folder(error)
                log.error("records unreadable reason=%(reason)s", {"reason": said})
                raise BadInput("the records cannot be read; the hospital's log says why") from error
            self._records = key, share(records, self._hospital.part)
            self._units.clear()
        return self._records[1]

    def _without_folder(self, error: BadInput) -> str:
        """What is wrong, by the file's name alone; folders may be called after wards."""
        return str(error).replace(f"{self._hospital.records.parent}{os.sep}", "")


def grouped_by(plan: RoundPlan) -> Unit:
    """What records are grouped by; those of a whole site as the task prefers."""
    return grouping_unit(find_task(plan.task), plan.task_config, plan.privacy.unit)
