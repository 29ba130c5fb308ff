"""CoOp and CoCoOp side by side, with controls: the example study with and without privacy.

One row is one federated study of four hospitals through the same runner as ``wardround run``, on
made-up pictures or on scikit-learn's real digits. All rows share one learning rate and number of
steps, chosen on a seed that is in no table. Knows nothing of how prompts are learnt. Compares what
Zhou et al. (2022), "Conditional prompt learning for vision-language models", table 1, compares;
pictures replaced by noise or by nothing are the controls that CaPT (arXiv 2506.23856) calls for.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import as_file, files
from itertools import product
from pathlib import Path
from typing import Any

from wardround.client.tasks.cocoop.evaluation import averages
from wardround.client.tasks.cocoop.world import COLOURS, SHAPES
from wardround.client.tasks.draws import Draws
from wardround.client.workbench import Workbench
from wardround.privacy.errors import BadInput
from wardround.privacy.plan import Mode
from wardround.study.bench.digits import NAMES as DIGITS
from wardround.study.bench.digits import write_digits
from wardround.study.bench.row_file import append_row, read_rows
from wardround.study.config import Study
from wardround.study.local import begin
from wardround.study.runner import Outcome, Stage, execute

EPSILONS: tuple[float | None, ...] = (None, 8.0)  # None trains without privacy
WORLDS = ("made-up", "digits")
SCORES = ("base", "new", "h")
ZERO_SHOT = "zero-shot"


@dataclass(frozen=True)
class Arm:
    """One way to learn a prompt.

    Attributes:
        name: As the table calls it.
        adapter: Its ``[adapter]`` table.
    """

    name: str
    adapter: Mapping[str, Any]


ARMS = (
    Arm("CoOp", {"method": "coop"}),
    Arm("CoCoOp", {"method": "cocoop"}),
    Arm("CoCoOp on noise", {"method": "cocoop", "condition": "noise"}),
    Arm("CoCoOp on nothing", {"method": "cocoop", "condition": "zero"}),
)


@dataclass(frozen=True)
class Size:
    """How much is trained; the same for every row.

    Attributes:
        rounds: Of the study.
        steps_per_round: Steps between two meetings of the hospitals.
        learning_rate: Of Adam at each hospital.
        names: Of a made-up study, half of them trained on.
        probes_per_name: Pictures of each name to evaluate on.
        shots: Pictures of a name at a hospital that has some.
    """

    rounds: int = 10
    steps_per_round: int = 10
    learning_rate: float = 0.03
    names: int = 24
    probes_per_name: int = 50
    shots: int = 32


def cocoop_benchmark(
    seeds: Sequence[int] = (0, 1, 2),
    out: Path | None = None,
    arms: Sequence[Arm] = ARMS,
    epsilons: Sequence[float | None] = EPSILONS,
    worlds: Sequence[str] = WORLDS,
    size: Size | None = None,
    say: Callable[[str], object] = lambda line: None,
) -> dict[str, Any]:
    """The tables of docs/cocoop.md.

    Args:
        seeds: Public seeds; each draws names, pictures and first values of its own.
        out: Rows are appended here as JSON lines when they are known; those in it are not run.
        arms: What is compared.
        epsilons: Of every picture of every hospital; None without privacy.
        worlds: Which of ``WORLDS``.
        size: How much is trained.
        say: Told each row.

    Returns:
        ``rows``, one a world, method, epsilon and seed; ``summary``, column means and standard
        deviations over seeds, H as papers publish it; ``settings``.

    Raises:
        BadInput: A world is unknown, or ``out`` holds something else than rows.
    """
    unknown = sorted(set(worlds) - set(WORLDS))
    if unknown:
        raise BadInput(f"--worlds names {unknown[0]!r}; expected {' or '.join(WORLDS)}")
    size = size or Size()
    known = read_rows(out, _key)
    rows: list[dict[str, Any]] = []
    with Workbench() as workbench:
        # Whole seeds one after the other, so that a stop leaves whole tables of fewer seeds.
        for seed, world, epsilon, arm in product(seeds, worlds, epsilons, arms):
            row = {"world": world, "method": arm.name, "epsilon": epsilon, "seed": seed}
            done = known.get(_key(row))
            if done is None:
                done = row | _run(row, arm.adapter, size, workbench)
                append_row(out, done)
                say(json.dumps(done))
            rows.append(done)
    settings = vars(size) | {"seeds": list(seeds)}
    return {"rows": rows, "summary": summary(rows), "settings": settings}


def _key(row: Mapping[str, Any]) -> tuple[str, str, float | None, int]:
    """What tells rows apart."""
    return row["world"], row["method"], row["epsilon"], row["seed"]


def _run(
    row: Mapping[str, Any], adapter: Mapping[str, Any], size: Size, workbench: Workbench
) -> dict[str, Any]:
    """One federated study's scores, and what it took."""
    started = time.process_time()
    with (
        as_file(files("wardround.study") / "embedded" / "cocoop") as example,
        tempfile.TemporaryDirectory(prefix="wardround-bench-") as scratch,
    ):
        data = None
        if row["world"] == "digits":
            data = write_digits(Path(scratch) / "digits")
        study = _study(Study.read(example / "study.toml"), row, adapter, size)
        folder = begin(study, Path(scratch), data, workbench)
        outcome = execute(folder, Stage(workbench=workbench))
    return {**_figures(outcome), "processor_s": round(time.process_time() - started, 1)}


def _study(example: Study, row: Mapping[str, Any], adapter: Mapping[str, Any], size: Size) -> Study:
    """The example study with this arm, privacy, world and size."""
    seed, epsilon = int(row["seed"]), row["epsilon"]
    privacy = replace(
        example.privacy,
        mode=Mode.NONE if epsilon is None else Mode.LOCAL,
        epsilon=epsilon,
        steps_per_round=size.steps_per_round,
    )
    task = {**example.task, "shots": size.shots, "probes_per_name": size.probes_per_name}
    if row["world"] == "digits":
        task |= {"names": list(DIGITS), "names_per_hospital": 3}
    else:
        everything = [f"{colour} {shape}" for shape in SHAPES for colour in COLOURS]
        drawn = Draws(seed, "bench/cocoop").sample(everything, size.names)
        task |= {"names": drawn, "names_per_hospital": max(1, size.names // 4)}
    return replace(
        example,
        study=replace(
            example.study, seed=seed, rounds=size.rounds, evaluate_every=max(1, size.rounds)
        ),
        privacy=privacy,
        adapter=dict(adapter),
        training={**example.training, "learning_rate": size.learning_rate},
        task=task,
    )


def _figures(outcome: Outcome) -> dict[str, Any]:
    """What a table shows of a study, zero-shot beside it."""
    wanted = (*SCORES, *(f"zero_shot_{name}" for name in SCORES), "base_macro_f1", "base_auroc")
    found: dict[str, Any] = {name: round(outcome.after[name], 4) for name in wanted}
    found["start_h"] = round(outcome.before["h"], 4)
    found["bytes_up"] = outcome.bytes_up
    if outcome.private:
        spent = [report["epsilon_study"] for report in outcome.last_reports.values()]
        found["epsilon_spent"] = round(max(spent), 4)
    return found


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each method's means and deviations over seeds, and its H against zero-shot, seed by seed."""
    groups: dict[tuple[str, str, float | None], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["world"], row["method"], row["epsilon"]), []).append(row)
        plain = {name: row[f"zero_shot_{name}"] for name in SCORES} | {"seed": row["seed"]}
        others = groups.setdefault((row["world"], ZERO_SHOT, None), [])
        if all(other["seed"] != row["seed"] for other in others):
            others.append(plain)
    found = []
    for (world, method, epsilon), group in sorted(groups.items(), key=lambda g: str(g[0][0])):
        line: dict[str, Any] = {"world": world, "method": method, "epsilon": epsilon}
        line["seeds"] = len(group)
        line |= {name: round(value, 4) for name, value in averages(group).items()}
        for name in SCORES:
            values = [float(row[name]) for row in group]
            line[f"{name}_sd"] = round(statistics.stdev(values), 4) if len(values) > 1 else 0.0
        if method != ZERO_SHOT:
            gains = [row["h"] - row["zero_shot_h"] for row in group]
            line["h_over_zero_shot"] = round(statistics.fmean(gains), 4)
            if len(gains) > 1:
                line["h_over_zero_shot_sd"] = round(statistics.stdev(gains), 4)
        found.append(line)
    return found
