"""Training on labels that went through randomised response: what label privacy alone amounts to.

What is computed from noised labels needs no clipping and no noise, as often as one likes. What else
a record says is used as it is and is not protected. Sources: Ghazi et al. (2021), "Deep learning
with label differential privacy"; Chowdhury et al. (2024), "Provably robust DPO", for losses that
are unbiased under flips.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch

from wardround.client.gradients import Workload
from wardround.client.sampling import Units
from wardround.client.tasks.base import HasLabels, Record, TaskConfig
from wardround.privacy.errors import PolicyRefused
from wardround.privacy.events import RandomisedResponse
from wardround.privacy.label_book import LABELS, LabelBook
from wardround.privacy.mechanisms import PrivacyPlan
from wardround.privacy.noise import Arrays, Noised
from wardround.privacy.reservation import Reservation
from wardround.privacy.stream import SecureStream


def expecting_flips(workload: Workload, plan: PrivacyPlan) -> Workload:
    """The workload, told how often labels will be wrong where the plan randomises them.

    Raises:
        PolicyRefused: The task has no labels to randomise.
        BadInput: Its settings do not go with wrong labels.
    """
    if not plan.paid_once:
        return workload
    return replace(workload, task_config=check_labels(workload.task, workload.task_config, plan))


def check_labels(task: object, config: TaskConfig, plan: PrivacyPlan) -> TaskConfig:
    """The settings of a task for labels that are wrong as often as this plan makes them.

    Raises:
        PolicyRefused: The task has no labels to randomise.
        BadInput: Its settings do not go with wrong labels.
    """
    if not isinstance(task, HasLabels):
        raise PolicyRefused(f"mechanism is {plan.mechanism.value!r}; this task has no labels")
    return task.expecting_flips(config, plan.flip_probability)


def draw_labels(
    workload: Workload,
    units: Units,
    book: LabelBook,
    plan: PrivacyPlan,
    reservation: Reservation,
    stream: SecureStream,
) -> Noised:
    """The noised label of every record, drawn in the run's first round and then the same."""
    task, records = cast("HasLabels", workload.task), _flat(units)
    event = plan.step_event
    assert isinstance(event, RandomisedResponse)
    labels = torch.tensor(task.labels(records), dtype=torch.long)
    return book.draw([record.id for record in records], labels, event, reservation, stream)


def relabelled(workload: Workload, units: Units, noised: Arrays) -> Units:
    """The records as if the noised labels were theirs, each a unit."""
    task = cast("HasLabels", workload.task)
    found = task.relabel(_flat(units), [int(label) for label in noised[LABELS]])
    return [[record] for record in found]


def _flat(units: Units) -> list[Record]:
    """All records, one after the other."""
    return [record for unit in units for record in unit]
