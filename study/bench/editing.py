"""The tables of docs/medical-editing.md: one study a row, the rows written down as they finish.

Each row is the embedded study with some settings changed, run the ordinary way with all hospitals
on this machine, or a central edit of public facts. A row that stands in the file already is not
run again, so a long table can be stopped and gone on with. Knows nothing of how anything trains.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from wardround.client.workbench import Workbench
from wardround.study.bench.editing_central import run_central
from wardround.study.bench.editing_rows import Row, rows_of
from wardround.study.bench.row_file import append_row, read_rows
from wardround.study.config import Study
from wardround.study.local import begin, first_round_allowed
from wardround.study.run_folder import RunFolder
from wardround.study.runner import Outcome, Stage, execute

SCORES = ("exact.seen", "exact.unseen", "token.seen", "token.unseen", "locality")


def editing_benchmark(
    tables: Sequence[str],
    seeds: int,
    out: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Every row of the tables, those in ``out`` as they stand there.

    Args:
        tables: Names of ``editing_rows.TABLES``.
        seeds: Seeds 1 to this many a row; seed 0 is the demo's and was looked at while tuning.
        out: JSON lines, one a row; rows are added to it as they finish.
        say: Told which row is being run.

    Raises:
        BadInput: A table is unknown, or ``out`` holds something else than rows.
    """
    wanted = rows_of(tables, range(1, seeds + 1))
    known = read_rows(out, lambda row: f"{row['table']}/{row['name']}/{row['seed']}")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for number, row in enumerate(wanted, 1):
            if row.key not in known:
                say(f"{number}/{len(wanted)} {row.key}")
                known[row.key] = _run(row)
                append_row(out, known[row.key])
    finally:
        torch.set_num_threads(threads)
    found = [known[row.key] for row in wanted]
    return {"rows": found, "means": means(found), "settings": {"seeds": seeds, "threads": 1}}


def means(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of equal name as one: the mean of each figure, and the worst exact match."""
    by_name: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        by_name.setdefault((row["table"], row["name"]), []).append(row)
    summary = []
    for (table, name), group in by_name.items():
        figures = {
            key: round(mean(float(row[key]) for row in group), 4)
            for key, value in group[0].items()
            if isinstance(value, int | float) and key != "seed" and all(key in r for r in group)
        }
        lowest = min((row.get("exact.unseen", 0.0) for row in group), default=0.0)
        summary.append(
            {"table": table, "name": name, "seeds": len(group), **figures,
             "exact.unseen.lowest": lowest}
        )  # fmt: skip
    return summary


def _run(row: Row) -> dict[str, Any]:
    """One row's figures."""
    started = time.process_time()
    found = run_central(row.name, row.seed) if row.table == "methods" else _run_study(row)
    seconds = round(time.process_time() - started, 1)
    return {"table": row.table, "name": row.name, "seed": row.seed, **found, "cpu_s": seconds}


def _run_study(row: Row) -> dict[str, Any]:
    """A whole federated study, its scores and what it sent."""
    embedded = files("wardround.study") / "embedded" / "medical-editing"
    with (
        as_file(embedded) as folder,
        tempfile.TemporaryDirectory(prefix="wardround-bench-") as scratch,
        Workbench() as workbench,
    ):
        study = row.change(Study.read(folder / "study.toml"))
        looks = 1 if study.stop else study.study.rounds
        section = replace(study.study, seed=row.seed, evaluate_every=looks)
        study = replace(study, study=section)

        def accept(draft: RunFolder) -> None:
            first_round_allowed(draft)
            row.prepare(draft)

        draft = begin(study, Path(scratch), None, workbench, accept)
        return _figures(study, execute(draft, Stage(workbench=workbench)))


def _figures(study: Study, outcome: Outcome) -> dict[str, Any]:
    """What a table shows of a study."""
    found: dict[str, Any] = {}
    for name, value in sorted(outcome.after.items()):
        kind = name.removeprefix("exact.").removeprefix("token.")
        if name in SCORES or kind.count(".") == 1 or name.startswith("locality."):
            found[name] = round(value, 4)
            found[f"before.{name}"] = round(outcome.before[name], 4)
    answers = [answer for record in outcome.records for answer in record.answers]
    found["rounds"] = len(outcome.records)
    found["bytes_up"] = outcome.bytes_up
    found["refused"] = sum(answer.report is None for answer in answers)
    found["round_s"] = round(mean(record.seconds for record in outcome.records), 3)
    found["epsilon"] = study.privacy.epsilon or 0.0
    return found
