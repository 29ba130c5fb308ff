"""The two stages of ranking, side by side: BM25, stage 1, stage 2 with and without privacy.

For each seed, everything is made anew: general text, stage 1 on public weak pairs, then the example
study's federated stage 2 through the same runner as ``wardround run``. A row is printed and written
as soon as it is known. Knows nothing of how scores come about.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import tomli_w
import torch

from wardround.client.bases.build_notes import (
    NotesRecipe,
    adapt_to_ranking,
    general_model,
    train_tokenizer,
)
from wardround.client.bases.making import save_base
from wardround.client.tasks.ranking.evaluation import FIRST_STAGE
from wardround.client.workbench import Workbench
from wardround.privacy.plan import Mode
from wardround.privacy.tables import read_toml
from wardround.study.config import ModelSection, Study
from wardround.study.local import begin
from wardround.study.runner import Outcome, Stage, execute

MEASURES = ("nDCG@10", "RR@10")


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        name: As the table calls it.
        two_stages: Start from stage 1, not from general text.
        epsilon: Of every record of every hospital; None without privacy.
    """

    name: str
    two_stages: bool
    epsilon: float | None


ARMS = (
    Arm("stage 1 + stage 2, not private", True, None),
    Arm("stage 1 + stage 2, epsilon 8", True, 8.0),
    Arm("stage 1 + stage 2, epsilon 3", True, 3.0),
    Arm("stage 2 alone, not private", False, None),
)


def ranking_study(
    seeds: Sequence[int] = (0, 1, 2),
    arms: Sequence[Arm] = ARMS,
    rows_file: Path | None = None,
    recipe: NotesRecipe | None = None,
    shrink: Callable[[Study], Study] = lambda study: study,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """The table as one JSON document.

    Args:
        seeds: Public seeds; each draws models, records and probes of its own.
        arms: What is trained.
        rows_file: Rows are also appended here as JSON lines.
        recipe: How the two public models are made.
        shrink: Changes the example study, for tests.
        say: Told each row.

    Returns:
        ``rows``, one a seed and method, and ``summary``: each method's mean over seeds and the gap
        of stage 2 with privacy to stage 2 without.
    """
    started = time.process_time()
    rows: list[dict[str, Any]] = []

    def keep(row: dict[str, Any]) -> None:
        rows.append(row)
        say(json.dumps(row))
        if rows_file is not None:
            with rows_file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    with (
        as_file(files("wardround.study") / "embedded" / "ranking") as example,
        tempfile.TemporaryDirectory(prefix="wardround-ranking-") as scratch,
    ):
        study = shrink(Study.read(example / "study.toml"))
        for seed in seeds:
            for row in _rows_of(seed, arms, study, recipe or NotesRecipe(), Path(scratch)):
                keep(row)
    return {
        "rows": rows,
        "summary": _summary(rows),
        "processor_s": round(time.process_time() - started, 1),
    }


def _rows_of(
    seed: int, arms: Sequence[Arm], study: Study, recipe: NotesRecipe, scratch: Path
) -> Iterator[dict[str, Any]]:
    """BM25, general text, stage 1, then each arm."""
    bases = _public_models(replace(recipe, seed=seed), scratch / f"bases-{seed}")
    known: set[str] = set()
    for arm in arms:
        spent = time.process_time()
        outcome = _train(study, arm, seed, bases[arm.two_stages], scratch / f"{seed}-{arm.name}")
        if "BM25" not in known:
            known.add("BM25")
            first = {name: outcome.before[FIRST_STAGE + name] for name in MEASURES}
            yield {"seed": seed, "method": "BM25", **_rounded(first)}
        start = "stage 1" if arm.two_stages else "general text"
        if start not in known:
            known.add(start)
            yield {"seed": seed, "method": start, **_rounded(outcome.before)}
        row = {"seed": seed, "method": arm.name, **_rounded(outcome.after)}
        if outcome.private:
            spent_epsilon = [report["epsilon_study"] for report in outcome.last_reports.values()]
            row["epsilon"] = round(max(spent_epsilon), 4)
        yield {**row, "processor_s": round(time.process_time() - spent, 1)}


def _public_models(recipe: NotesRecipe, folder: Path) -> dict[bool, ModelSection]:
    """The base after general text alone (False) and after stage 1 too (True)."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(recipe.seed)
    tokenizer = train_tokenizer()
    model = general_model(recipe, tokenizer, generator)
    general = save_base(model, tokenizer, folder / "general", {})
    adapt_to_ranking(recipe, model, tokenizer, generator)
    adapted = save_base(model, tokenizer, folder / "stage-one", {})
    return {
        False: ModelSection(str(folder / "general"), general["sha256"]),
        True: ModelSection(str(folder / "stage-one"), adapted["sha256"]),
    }


def _train(study: Study, arm: Arm, seed: int, model: ModelSection, folder: Path) -> Outcome:
    """One study from its start to its last round."""
    folder.mkdir()
    policy = read_toml(study.policy)
    policy["allow"]["bases"] = [model.sha256]
    (folder / "policy.toml").write_text(tomli_w.dumps(policy), encoding="utf-8")
    private = arm.epsilon is not None
    privacy = replace(
        study.privacy,
        mode=Mode.LOCAL if private else Mode.NONE,
        epsilon=arm.epsilon,
        noise_multiplier=None,
    )
    chosen = replace(
        study,
        path=folder / "study.toml",
        study=replace(study.study, seed=seed, evaluate_every=study.study.rounds),
        hospitals=replace(study.hospitals, policy=Path("policy.toml")),
        model=model,
        privacy=privacy,
    )
    with Workbench() as workbench:
        run = begin(chosen, folder / "runs", None, workbench)
        return execute(run, Stage(workbench=workbench))


def _rounded(scores: Any) -> dict[str, float]:
    """The measures of the table."""
    return {name: round(scores[name], 4) for name in MEASURES}


def _summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean and range over seeds, and what privacy costs."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    found: dict[str, Any] = {}
    for method in methods:
        values = [row["nDCG@10"] for row in rows if row["method"] == method]
        found[method] = {
            "nDCG@10": round(sum(values) / len(values), 4),
            "least": min(values),
            "most": max(values),
            "seeds": len(values),
        }
    best = found.get(ARMS[0].name)
    for arm in ARMS[1:3]:
        if best and arm.name in found:
            found[arm.name]["gap_to_not_private"] = round(
                best["nDCG@10"] - found[arm.name]["nDCG@10"], 4
            )
    return found
