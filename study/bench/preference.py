"""Preference methods side by side: the example study, cut down, with and without privacy.

One row is one federated study of four hospitals through the same runner as ``wardround run``. All
rows share one learning rate, one beta and one number of steps, chosen before they were run, so that
no method is tuned more than another. Knows nothing of how losses come about. Compares what Tajwar
et al. (2024), "Preference fine-tuning of LLMs should leverage suboptimal, on-policy data", compare.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from wardround.client.workbench import Workbench
from wardround.privacy.plan import Mode
from wardround.study.bench.row_file import append_row, read_rows
from wardround.study.config import Study
from wardround.study.local import begin
from wardround.study.runner import Stage, execute

EPSILONS: tuple[float | None, ...] = (None, 8.0, 3.0)  # None trains without privacy
SCORES = ("win_rate", "reward", "accuracy", "kl")


@dataclass(frozen=True)
class Arm:
    """One way to learn from judgements.

    Attributes:
        name: As the table calls it.
        method: As ``[task]`` calls it.
        on_policy: Whether the model writes the replies it learns from.
    """

    name: str
    method: str
    on_policy: bool = False


ARMS = (
    Arm("DPO, offline", "dpo"),
    Arm("DPO, on-policy", "dpo", on_policy=True),
    Arm("Pref-FT", "pref-ft"),
    Arm("Best-of-N, on-policy", "best-of-n", on_policy=True),
    Arm("RWR, offline", "reward-weighted"),
)


@dataclass(frozen=True)
class Size:
    """How much is trained; the same for every row.

    Attributes:
        rounds: Of the study.
        steps_per_round: Steps between two meetings of the hospitals.
        learning_rate: Of Adam at each hospital.
        beta: Of DPO.
        replies: That an on-policy method has written to each prompt.
        probes: Prompts to evaluate on.
        hospitals: Who takes part.
        records_per_hospital: Judged pairs of each.
    """

    rounds: int = 3
    steps_per_round: int = 5
    learning_rate: float = 0.003
    beta: float = 0.5
    replies: int = 4
    probes: int = 60
    hospitals: int = 4
    records_per_hospital: int = 240


def preference_benchmark(
    seeds: Sequence[int] = (0, 1, 2),
    out: Path | None = None,
    arms: Sequence[Arm] = ARMS,
    epsilons: Sequence[float | None] = EPSILONS,
    size: Size | None = None,
    say: Callable[[str], object] = lambda line: None,
) -> dict[str, Any]:
    """The table of docs/preference.md.

    Args:
        seeds: Public seeds; each draws records, probes and first adapters of its own.
        out: Rows are appended here as JSON lines when they are known; those in it are not run.
        arms: What is compared.
        epsilons: Of every record of every hospital; None without privacy.
        size: How much is trained.
        say: Told each row.

    Returns:
        ``rows``, one a seed, method and epsilon; ``summary``, mean and standard deviation over
        seeds; ``settings``.
    """
    size = size or Size()
    known = read_rows(out, lambda row: (row["method"], row["epsilon"], row["seed"]))
    rows: list[dict[str, Any]] = []
    with Workbench() as workbench:
        for seed, epsilon, arm in _order(seeds, epsilons, arms):
            row = known.get((arm.name, epsilon, seed))
            if row is None:
                row = {"method": arm.name, "epsilon": epsilon, "seed": seed}
                row |= _run(arm, epsilon, seed, size, workbench)
                append_row(out, row)
                say(json.dumps(row))
            rows.append(row)
    return {"rows": rows, "summary": summary(rows), "settings": vars(size) | {"seeds": list(seeds)}}


def _order(
    seeds: Sequence[int], epsilons: Sequence[float | None], arms: Sequence[Arm]
) -> Iterator[tuple[int, float | None, Arm]]:
    """Whole seeds one after the other, so that a stop leaves whole tables of fewer seeds."""
    return ((seed, epsilon, arm) for seed in seeds for epsilon in epsilons for arm in arms)


def _run(
    arm: Arm, epsilon: float | None, seed: int, size: Size, workbench: Workbench
) -> dict[str, Any]:
    """One federated study's scores, before and after, and what it took."""
    started = time.process_time()
    with (
        as_file(files("wardround.study") / "embedded" / "preference") as example,
        tempfile.TemporaryDirectory(prefix="wardround-bench-") as scratch,
    ):
        study = _study(Study.read(example / "study.toml"), arm, epsilon, seed, size)
        folder = begin(study, Path(scratch), None, workbench)
        outcome = execute(folder, Stage(workbench=workbench))
    found: dict[str, Any] = {name: round(outcome.after[name], 4) for name in SCORES}
    found["reference_reward"] = round(outcome.after["reference_reward"], 4)
    if outcome.private:
        spent = [report["epsilon_study"] for report in outcome.last_reports.values()]
        found["epsilon_spent"] = round(max(spent), 4)
    return {**found, "processor_s": round(time.process_time() - started, 1)}


def _study(example: Study, arm: Arm, epsilon: float | None, seed: int, size: Size) -> Study:
    """The example study with this arm, privacy and size."""
    privacy = replace(
        example.privacy,
        mode=Mode.NONE if epsilon is None else Mode.LOCAL,
        epsilon=epsilon,
        steps_per_round=size.steps_per_round,
    )
    task: dict[str, Any] = dict(example.task)
    task |= {"method": arm.method, "loss": {**task["loss"], "beta": size.beta}}
    task["sampling"] = {
        **task["sampling"],
        "share": float(arm.on_policy),
        "replies": size.replies,
        "reuse": size.steps_per_round,
    }
    task["generated"] = {
        **task["generated"],
        "probes": size.probes,
        "records_per_hospital": size.records_per_hospital,
    }
    return replace(
        example,
        study=replace(example.study, seed=seed, rounds=size.rounds, evaluate_every=size.rounds),
        hospitals=replace(example.hospitals, count=size.hospitals),
        privacy=privacy,
        training={**example.training, "learning_rate": size.learning_rate},
        task=task,
    )


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation over seeds of each method at each epsilon."""
    groups: dict[tuple[str, float | None], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["epsilon"]), []).append(row)
    found = []
    for (method, epsilon), group in groups.items():
        line: dict[str, Any] = {"method": method, "epsilon": epsilon, "seeds": len(group)}
        for name in (*SCORES, "reference_reward"):
            values = [float(row[name]) for row in group]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            line[name] = {"mean": round(statistics.fmean(values), 4), "sd": round(spread, 4)}
        found.append(line)
    return found
