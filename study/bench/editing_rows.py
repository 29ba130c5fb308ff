"""Which studies the editing tables are made of: the embedded study, and what each row changes.

Knows settings; runs nothing. ``private``: how many records must agree before a correction is
learnt, all four supports in one study. ``located``: the traced layers against all layers at the
same budget. ``ways``: ways of editing at the same budget. ``unlike``: hospitals that differ.
``methods``: ways of editing centrally and without privacy; its rows stand in ``editing_central``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import tomli_w

from wardround.privacy.errors import BadInput
from wardround.privacy.tables import nearest, read_toml
from wardround.server.stopping import StopRule
from wardround.study.bench.editing_central import central_rows
from wardround.study.config import Study
from wardround.study.run_folder import RunFolder

EPSILONS = (8.0, 3.0)
EACH = 3  # corrections of each support: 3 x (256 + 64 + 16 + 1) of 4 x 320 records
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
FEWER = {"records_per_hospital": 130, "weak": 0}
FT_RATE = 1e-2  # of five from 3e-4 to 3e-2 on seed 11, which no table shows
PUBLISHED_STOP = 0.86  # e to the minus 0.15, where central edits stop
ONE_STRICT = "one hospital allows epsilon 3 only"

Change = Callable[[Study], Study]


def _nothing(draft: RunFolder) -> None:
    """Hospitals as they were laid out."""


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        table: Which table.
        name: What the row shows; rows that differ in their seed alone share it.
        seed: Of corrections, records and starting values; noise is never seeded.
        change: Makes the row's study of the embedded one.
        prepare: Changes what hospitals find before the study starts.
    """

    table: str
    name: str
    seed: int
    change: Change
    prepare: Callable[[RunFolder], None] = _nothing

    @property
    def key(self) -> str:
        """What the row is called in a file of rows."""
        return f"{self.table}/{self.name}/{self.seed}"


def rows_of(tables: Sequence[str], seeds: Iterable[int]) -> list[Row]:
    """The rows of these tables, in order.

    Raises:
        BadInput: There is no such table.
    """
    found = []
    for table in tables:
        if table not in TABLES:
            raise BadInput(f"table {table!r} is unknown{nearest(table, list(TABLES))}")
        found += [
            Row(table, name, seed, change, PREPARATIONS.get(name, _nothing))
            for seed in seeds
            for name, change in TABLES[table]()
        ]
    return found


def shaped(study: Study, **shape: Any) -> Study:
    """The study with other made-up records."""
    usual = {"records_per_hospital": 320, "corroborated": 4, "weak": 4, "single": 4}
    return replace(study, task={**study.task, "generated": {**usual, **shape}})


def tasked(study: Study, **settings: Any) -> Study:
    """The study with other settings of the task."""
    return replace(study, task={**study.task, **settings})


def protected(study: Study, epsilon: float) -> Study:
    """The study at another epsilon."""
    return replace(study, privacy=replace(study.privacy, epsilon=epsilon))


def adapted(study: Study, learning_rate: float, **adapter: Any) -> Study:
    """The study with another adapter, and the learning rate that goes with it."""
    training = {**study.training, "learning_rate": learning_rate}
    return replace(study, adapter={**study.adapter, **adapter}, training=training)


def _private() -> Iterable[tuple[str, Change]]:
    """Four supports in one study, at two budgets."""
    shape = {"strong": EACH, "corroborated": EACH, "weak": EACH, "single": EACH}
    for epsilon in EPSILONS:
        yield f"epsilon {epsilon:g}", _both(epsilon, shape)


def _both(epsilon: float, shape: Mapping[str, Any]) -> Change:
    return lambda study: protected(shaped(study, **shape), epsilon)


def _located() -> Iterable[tuple[str, Change]]:
    """Traced layers against all of them, at epsilon 8; fewer records, so that it ends today."""
    some = _both(8.0, FEWER)
    every = {"rank": 4, "alpha": 8, "targets": PROJECTIONS}
    yield "layers 5-7 down_proj", some
    yield "all layers, all projections", lambda study: adapted(some(study), 0.003, **every)


def _ways() -> Iterable[tuple[str, Change]]:
    """Ways of editing the traced layers, at epsilon 8; the records are those of ``located``."""
    some = _both(8.0, FEWER)
    traced = {"method": "medlasa", "trace": {"rows": "subject+last", "samples": 4}}
    yield "lora", some
    yield "medlasa, router trace", lambda study: tasked(some(study), **traced)
    yield "medlasa, router none", lambda study: tasked(some(study), **traced, router="none")
    rule = StopRule("likelihood.seen.corroborated", at_least=PUBLISHED_STOP)
    yield "lora, stopped early", lambda study: replace(some(study), stop=rule)
    yield "ft", lambda study: adapted(tasked(some(study), method="ft"), FT_RATE)


def _unlike() -> Iterable[tuple[str, Change]]:
    """Hospitals that differ from each other, at epsilon 8."""
    shape = {"records_per_hospital": 200, "weak": 0}
    yield "alike, for comparison", _both(8.0, shape)
    yield "all support in one hospital", _both(8.0, {**shape, "together": True})
    yield "conflicting corrections", _both(8.0, {**shape, "conflicting": 4})
    yield "sizes 500, 160, 80, 60", _both(8.0, {**shape, "sizes": [500, 160, 80, 60]})
    yield ONE_STRICT, _both(8.0, shape)


def _smaller_budget(draft: RunFolder) -> None:
    """The first hospital's policy allows epsilon 3; the study asks for 8."""
    policy = draft.path / "hospitals" / draft.facts.hospitals[0] / "policy.toml"
    tables = read_toml(policy)
    tables["budget"]["epsilon"] = 3.0
    policy.write_text(tomli_w.dumps(tables), encoding="utf-8")


PREPARATIONS: Mapping[str, Callable[[RunFolder], None]] = {ONE_STRICT: _smaller_budget}


def _methods() -> Iterable[tuple[str, Change]]:
    """The central rows, which change no study."""
    for row in central_rows():
        yield row.name, lambda study: study


TABLES: Mapping[str, Callable[[], Iterable[tuple[str, Change]]]] = {
    "private": _private,
    "located": _located,
    "ways": _ways,
    "unlike": _unlike,
    "methods": _methods,
}
