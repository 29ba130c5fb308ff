"""Tasks by name: those that come with Wardround and those of the entry-point group.

A study names a task, never an import path. Ours are listed here with what a table of tasks shows,
so that listing them imports neither torch nor the tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, cast

from wardround.privacy.errors import BadInput
from wardround.privacy.tables import nearest

if TYPE_CHECKING:
    from wardround.client.tasks.base import Task

GROUP = "wardround.tasks"


@dataclass(frozen=True)
class TaskListing:
    """What a table of tasks shows.

    Attributes:
        name: As study files spell it.
        summary: One line.
        units: Units of privacy it supports, the default first.
    """

    name: str
    summary: str
    units: tuple[str, ...]


# Name, where it lives, and what the class itself says; a test compares the two.
BUILT_IN: dict[str, tuple[str, TaskListing]] = {
    "ballots": (
        "wardround.client.tasks.ballots.task:BallotsTask",
        TaskListing(
            "ballots",
            "Put replies or principles to the vote; noised duels leave, no ballots",
            ("clinician", "record"),
        ),
    ),
    "dro": (
        "wardround.client.tasks.dro.task:DroTask",
        TaskListing(
            "dro",
            "Learn a safety prompt that refuses harmful queries only (DRO)",
            ("record", "clinician", "patient"),
        ),
    ),
    "editing": (
        "wardround.client.tasks.editing.task:EditingTask",
        TaskListing(
            "editing",
            "Correct a language model's medical facts (MedLaSA, LoRA or whole layers)",
            ("record", "patient", "clinician"),
        ),
    ),
    "ranking": (
        "wardround.client.tasks.ranking.task:RankingTask",
        TaskListing(
            "ranking",
            "Rank a hospital's notes for its queries (TSARankLLM's second stage)",
            ("record", "patient"),
        ),
    ),
    "pacit": (
        "wardround.client.tasks.pacit.task:PacitTask",
        TaskListing(
            "pacit",
            "Follow instructions after judging their examples (PACIT, ICIT)",
            ("record", "patient", "task"),
        ),
    ),
    "pwiser": (
        "wardround.client.tasks.pwiser.task:PwiserTask",
        TaskListing(
            "pwiser",
            "Predict what patients look at and take up, by a loss over pairs",
            ("record", "patient", "list"),
        ),
    ),
    "spectron": (
        "wardround.client.tasks.spectron.task:SpectronTask",
        TaskListing(
            "spectron",
            "Answer spoken questions aloud, through text, in one pass (Spectron)",
            ("speaker", "patient", "record"),
        ),
    ),
    "preference": (
        "wardround.client.tasks.preference.task:PreferenceTask",
        TaskListing(
            "preference",
            "Tune a model to the replies clinicians prefer (DPO and fifteen others)",
            ("record", "clinician", "patient"),
        ),
    ),
    "abs_lingam": (
        "wardround.client.tasks.abs_lingam.task:AbsLingamTask",
        TaskListing(
            "abs_lingam",
            "Learn who causes whom; noised moments leave, no rows",
            ("record", "patient"),
        ),
    ),
    "cocoop": (
        "wardround.client.tasks.cocoop.task:CocoopTask",
        TaskListing(
            "cocoop",
            "Learn a prompt that names pictures (CoCoOp and CoOp, on CLIP)",
            ("record", "patient"),
        ),
    ),
    "reward": (
        "wardround.client.tasks.reward.task:RewardTask",
        TaskListing(
            "reward",
            "Learn a reward model from the replies clinicians prefer",
            ("record", "clinician", "patient"),
        ),
    ),
}
_registered: dict[str, Task] = {}


def register(task: Task) -> Task:
    """Make a task known by its name in this process.

    Raises:
        BadInput: The name is taken.
    """
    if task.name in _known():
        raise BadInput(f"task {task.name!r} is registered already")
    _registered[task.name] = task
    return task


def find_task(name: str) -> Task:
    """The task of this name.

    Raises:
        BadInput: There is none, suggesting the nearest; or two packages claim the name.
    """
    if name not in _registered:
        known = _known()
        if name not in known:
            raise BadInput(f"task {name!r} is unknown{nearest(name, list(known))}")
        source = known[name]
        _registered[name] = _load(source) if isinstance(source, str) else _made(source.load())
    return _registered[name]


def tasks() -> tuple[TaskListing, ...]:
    """Every task by name; only those of other packages are imported for it."""
    listings = []
    for name in sorted(_known()):
        if name in BUILT_IN:
            listings.append(BUILT_IN[name][1])
        else:
            task = find_task(name)
            listings.append(TaskListing(name, task.summary, tuple(map(str, task.units))))
    return tuple(listings)


def _known() -> dict[str, str | EntryPoint]:
    """Names and where their tasks come from; ``BadInput`` when two packages claim one name."""
    known: dict[str, str | EntryPoint] = {name: where for name, (where, _) in BUILT_IN.items()}
    for entry in entry_points(group=GROUP):
        if entry.dist is not None and entry.dist.name == "wardround":
            continue
        if entry.name in known:
            raise BadInput(f"task {entry.name!r} is claimed twice, once by {entry.value}")
        known[entry.name] = entry
    return known | dict.fromkeys(_registered, "")


def _load(where: str) -> Task:
    """A task of ours, from ``module:class``."""
    module, _, name = where.partition(":")
    return _made(getattr(import_module(module), name))


def _made(found: object) -> Task:
    """An entry point may name a task or its class."""
    return cast("Task", found() if isinstance(found, type) else found)
