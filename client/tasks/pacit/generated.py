"""A made-up pack of instruction tasks: read a medication order, write two of its fields in order.

A task is an ordered pair of fields, so its definition says all there is to know and a wrong example
is a near miss: what a neighbouring task would answer, the fields swapped or one of them another.
Some pairs are public (a base learns them), some are the hospitals', some are held out. Everything
is public and repeatable; exemplars are marked synthetic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

from wardround.client.tasks.base import Record
from wardround.client.tasks.draws import Draws
from wardround.client.tasks.pacit.records import Exemplar, Instance, Instructions, Source
from wardround.privacy import Unit

FIELDS: Mapping[str, tuple[str, ...]] = {
    "drug": (
        "Bato", "Zimeta", "Kirume", "Sofa", "Tazidu", "Naloko", "Pimo", "Ludera",
        "Ferosi", "Gamuta", "Hidola", "Jovine", "Merapo", "Rilusa", "Vodemi", "Welato",
    ),
    "dose": ("5 mg", "10 mg", "20 mg", "40 mg", "80 mg", "2 g"),
    "times": ("daily", "nightly", "hourly", "weekly"),
    "route": ("orally", "rectally", "intravenously", "topically"),
    "ward": ("ward A", "ward B", "ward C", "ward D", "ward E", "ward F"),
}  # fmt: skip
Order = Mapping[str, str]
Fields = tuple[str, ...]
HELD_IN, HELD_OUT = "held-in", "held-out"
_PAIRS = tuple(permutations(FIELDS, 2))
# A public list, so that a base and studies with any seed agree on what was held out of the base.
_DEALT = Draws(0, "pacit/pairs").shuffled(_PAIRS)
PUBLIC_TASKS: tuple[Fields, ...] = (*((name,) for name in FIELDS), *_DEALT[:6])
HOSPITAL_TASKS: tuple[Fields, ...] = tuple(_DEALT[6:16])
HELD_OUT_TASKS: tuple[Fields, ...] = tuple(_DEALT[16:])


@dataclass(frozen=True)
class PackShape:
    """How large a generated study is.

    Attributes:
        instances: Of each task at each hospital.
        exemplars: Right ones of each task at each hospital, and as many wrong ones.
        probes: Of each task, to evaluate on.
    """

    instances: int = 40
    exemplars: int = 20
    probes: int = 10

    def __post_init__(self) -> None:
        for name in ("instances", "exemplars", "probes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more")


def task_of(fields: Fields, draws: Draws, exemplars: int, category: str = "") -> Instructions:
    """The task of writing these fields, with exemplars of its own."""
    return Instructions(
        name="-then-".join(fields),
        definition=f"Read the order. Write its {', then its '.join(fields)}",
        positives=tuple(_exemplar(draws, fields, right=True) for _ in range(exemplars)),
        negatives=tuple(_exemplar(draws, fields, right=False) for _ in range(exemplars)),
        category=category,
    )


def make_pack(
    shape: PackShape, hospitals: int, seed: int
) -> tuple[list[list[Record]], list[Record]]:
    """Instances for each hospital, and probes of trained and held-out tasks."""
    shares = []
    for number in range(hospitals):
        draws = Draws(seed, f"pacit/hospital/{number}")
        shares.append(
            [
                record
                for fields in HOSPITAL_TASKS
                for record in _instances(
                    task_of(fields, draws, shape.exemplars), fields, draws, shape.instances,
                    f"h{number}",
                )
            ]
        )  # fmt: skip
    draws, probes = Draws(seed, "pacit/probes"), []
    for category, tasks in ((HELD_IN, HOSPITAL_TASKS), (HELD_OUT, HELD_OUT_TASKS)):
        for fields in tasks:
            task = task_of(fields, draws, shape.exemplars, category)
            probes += _instances(task, fields, draws, shape.probes, "probe")
    return shares, probes


def public_instances(count: int, seed: int) -> list[Instance]:
    """Instances of public tasks, each with exemplars of its own, for a base to learn from."""
    draws, found = Draws(seed, "pacit/public"), []
    for place in range(count):
        fields = PUBLIC_TASKS[place % len(PUBLIC_TASKS)]
        order = _order(draws)
        found.append(Instance(task_of(fields, draws, 1), _text(order), (_answer(order, fields),)))
    return found


def split_tasks(
    records: Sequence[Record], hospitals: int, seed: int, per_task: int, most_probes: int
) -> tuple[list[list[Record]], list[Record]]:
    """A public pack dealt out: a fifth of its tasks is held out, the rest goes round the hospitals.

    Of each remaining task one instance in ten is a probe, and at most ``per_task`` are trained on.
    Exemplars are marked public, because the pack is.
    """
    by_task: dict[str, list[Record]] = {}
    for record in records:
        task = _public(record.content.task)
        owners = {Unit.TASK: task.name, Unit.RECORD: record.id}
        by_task.setdefault(task.name, []).append(
            Record(record.id, owners, replace(record.content, task=task))
        )
    draws = Draws(seed, "pacit/deal")
    names = draws.shuffled(sorted(by_task))
    shares: list[list[Record]] = [[] for _ in range(hospitals)]
    probes: dict[str, list[Record]] = {HELD_IN: [], HELD_OUT: []}
    for name in names[: len(names) // 5]:
        probes[HELD_OUT] += draws.shuffled(by_task[name])
    for name in names[len(names) // 5 :]:
        own = draws.shuffled(by_task[name])
        aside = max(1, len(own) // 10)
        probes[HELD_IN] += own[:aside]
        for place, record in enumerate(own[aside:][:per_task]):
            shares[place % hospitals].append(record)
    asked = []
    for category, found in probes.items():
        for record in draws.sample(found, min(len(found), max(1, most_probes // 2))):
            labelled = replace(record.content.task, category=category)
            asked.append(replace(record, content=replace(record.content, task=labelled)))
    return shares, asked


def _public(task: Instructions) -> Instructions:
    """The task with exemplars marked public."""
    positives, negatives = (
        tuple(replace(one, source=Source.PUBLIC) for one in pool)
        for pool in (task.positives, task.negatives)
    )
    return replace(task, positives=positives, negatives=negatives)


def _instances(
    task: Instructions, fields: Fields, draws: Draws, count: int, owner: str
) -> list[Record]:
    """So many instances of a task."""
    found = []
    for place in range(count):
        order = _order(draws)
        name = f"{owner}-{task.name}-{place:04d}"
        owners = {Unit.TASK: task.name, Unit.RECORD: name}
        found.append(Record(name, owners, Instance(task, _text(order), (_answer(order, fields),))))
    return found


def _order(draws: Draws) -> Order:
    """A made-up order."""
    return {name: draws.choice(values) for name, values in FIELDS.items()}


def _text(order: Order) -> str:
    """The order as a clinician writes it."""
    return "{drug} {dose} {times} {route}, {ward}".format_map(order)


def _answer(order: Order, fields: Fields) -> str:
    """The fields asked for."""
    return ", ".join(order[name] for name in fields)


def _exemplar(draws: Draws, fields: Fields, right: bool) -> Exemplar:
    """An order with the right answer, or with a neighbouring task's."""
    order = _order(draws)
    written = fields if right else draws.choice(_neighbours(fields))
    return Exemplar(_text(order), _answer(order, written), Source.SYNTHETIC)


def _neighbours(fields: Fields) -> list[Fields]:
    """Tasks that differ in the order of fields or in one of them."""
    near = [
        (*fields[:place], other, *fields[place + 1 :])
        for place in range(len(fields))
        for other in FIELDS
        if other not in fields
    ]
    return [*near, *([tuple(reversed(fields))] * len(near) if len(fields) > 1 else [])]
