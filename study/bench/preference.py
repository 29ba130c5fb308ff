"""Preference methods side by side: the example study, cut down, with and without privacy.

One row is one federated study of four hospitals through the same runner as ``wardround run``. All
rows share one learning rate, one beta and one number of steps, chosen before they were run, so that
no method is tuned more than another. Knows nothing of how losses come about. Compares what Tajwar
et al. (2024), "Preference fine-tuning of LLMs should leverage suboptimal, on-policy data", compare.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wardround.client.workbench import Workbench
from wardround.study.bench.study_rows import (
    Row,
    collect_rows,
    cost,
    run_study,
    summary,
    with_privacy,
)
from wardround.study.config import Study

EPSILONS: tuple[float | None, ...] = (None, 8.0, 3.0)  # None trains without privacy
SHOWN = ("win_rate", "reward", "accuracy", "kl", "reference_reward")


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
    with Workbench() as workbench:

        def run(arm: Arm, epsilon: float | None, seed: int) -> Row:
            def change(example: Study) -> Study:
                return with_privacy(_study(example, arm, size), epsilon, seed)

            outcome = run_study("preference", change, workbench)
            return {name: round(outcome.after[name], 4) for name in SHOWN} | cost(outcome)

        rows = collect_rows(arms, epsilons, seeds, run, out, say)
    settings = vars(size) | {"seeds": list(seeds)}
    return {"rows": rows, "summary": summary(rows, SHOWN), "settings": settings}


def _study(example: Study, arm: Arm, size: Size) -> Study:
    """The example study with this arm and size."""
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
        study=replace(example.study, rounds=size.rounds),
        hospitals=replace(example.hospitals, count=size.hospitals),
        privacy=replace(example.privacy, steps_per_round=size.steps_per_round),
        training={**example.training, "learning_rate": size.learning_rate},
        task=task,
    )
