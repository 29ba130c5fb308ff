"""Tables whose rows are whole studies: one a method, epsilon and seed, kept as they finish.

A row is a federated study through the same runner as ``wardround run``. Knows nothing of tasks.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Protocol, TypeVar

from wardround.client.workbench import Workbench
from wardround.privacy.plan import Mode
from wardround.study.bench.row_file import append_row, read_rows
from wardround.study.config import Study
from wardround.study.local import begin
from wardround.study.publishing import export_run
from wardround.study.runner import Outcome, Stage, execute

Row = dict[str, Any]
KEY = ("method", "epsilon", "seed")


class Named(Protocol):
    """A method that is compared."""

    @property
    def name(self) -> str:
        """As the table calls it."""


Arm = TypeVar("Arm", bound=Named)


def with_privacy(study: Study, epsilon: float | None, seed: int) -> Study:
    """The study at this epsilon, or without privacy, with this seed; scored at its end alone."""
    privacy = replace(
        study.privacy,
        mode=Mode.NONE if epsilon is None else Mode.LOCAL,
        epsilon=epsilon,
        noise_multiplier=None,
    )
    section = replace(study.study, seed=seed, evaluate_every=study.study.rounds)
    return replace(study, study=section, privacy=privacy)


def run_study(
    name: str,
    change: Callable[[Study], Study],
    workbench: Workbench,
    export: Path | None = None,
) -> Outcome:
    """What the embedded example of this name comes to, changed; its files are gone afterwards.

    What it learnt is written to the folder ``export``, where that is asked for.
    """
    with (
        as_file(files("wardround.study") / "embedded" / name) as example,
        tempfile.TemporaryDirectory(prefix="wardround-bench-") as scratch,
    ):
        study = change(Study.read(example / "study.toml"))
        folder = begin(study, Path(scratch), None, workbench)
        outcome = execute(folder, Stage(workbench=workbench))
        if export is not None:
            export_run(folder.path, export)
        return outcome


def cost(outcome: Outcome) -> Row:
    """The most any hospital's budget was charged; nothing without privacy."""
    if not outcome.private:
        return {}
    spent = [report["epsilon_study"] for report in outcome.last_reports.values()]
    return {"epsilon_spent": round(max(spent), 4)}


def collect_rows(
    arms: Sequence[Arm],
    epsilons: Sequence[float | None],
    seeds: Sequence[int],
    run: Callable[[Arm, float | None, int], Row],
    out: Path | None,
    say: Callable[[str], object],
) -> list[Row]:
    """All rows, whole seeds one after the other, so that a stop leaves whole tables of fewer.

    Args:
        arms: What is compared.
        epsilons: Of every unit of every hospital; None without privacy.
        seeds: Public seeds.
        run: Makes the scores of one row.
        out: Rows are appended here as JSON lines when they are known; those in it are not run.
        say: Told each new row.

    Raises:
        BadInput: ``out`` holds something else.
    """
    known = read_rows(out, lambda row: tuple(row[name] for name in KEY))
    rows: list[Row] = []
    for seed in seeds:
        for epsilon in epsilons:
            for arm in arms:
                row = known.get((arm.name, epsilon, seed))
                if row is None:
                    started = time.process_time()
                    row = {"method": arm.name, "epsilon": epsilon, "seed": seed}
                    row |= run(arm, epsilon, seed)
                    row["processor_s"] = round(time.process_time() - started, 1)
                    append_row(out, row)
                    say(json.dumps(row))
                rows.append(row)
    return rows


def summary(rows: Sequence[Mapping[str, Any]], scores: Sequence[str]) -> list[Row]:
    """Mean and sample deviation over seeds of each method at each epsilon."""
    groups: dict[tuple[str, float | None], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["epsilon"]), []).append(row)
    found = []
    for (method, epsilon), group in groups.items():
        line: Row = {"method": method, "epsilon": epsilon, "seeds": len(group)}
        for name in scores:
            values = [float(row[name]) for row in group if name in row]
            if values:
                spread = statistics.stdev(values) if len(values) > 1 else 0.0
                line[name] = {"mean": round(statistics.fmean(values), 4), "sd": round(spread, 4)}
        found.append(line)
    return found
