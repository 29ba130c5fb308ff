"""Instruction tuning with and without verdicts, side by side: the example study, by template.

One row is one federated study of four hospitals through the same runner as ``wardround run``; all
rows share base, records, learning rate and number of steps. Random verdicts are the control for
targets that are merely longer. Knows nothing of how scores come about. Compares what Xue et al.
(2024), "PACIT", compare.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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

EPSILONS: tuple[float | None, ...] = (None, 8.0)
SCORES = tuple(
    f"{shots}_{score}_{tasks}"
    for shots in ("few", "zero")
    for score in ("exact", "rouge_l")
    for tasks in ("held_in", "held_out")
)
SHOWN = (*SCORES, "verdict_accuracy", "format_rate", "verdict_loss")


@dataclass(frozen=True)
class Arm:
    """One way to write prompts and targets.

    Attributes:
        name: As the table calls it.
        style: As ``[task]`` calls it.
        verdicts: What targets say of exemplars.
        answer_weight: Of the answer's tokens, where verdict and template have 1.
    """

    name: str
    style: str
    verdicts: str = "ground-truth"
    answer_weight: float = 1.0


ARMS = (
    Arm("zero-shot", "zero-shot"),
    Arm("ICIT", "icit"),
    Arm("PACIT", "pacit"),
    Arm("PACIT, random verdicts", "pacit", "random"),
    Arm("PACIT, answer weighted 5", "pacit", answer_weight=5.0),
)


def pacit_benchmark(
    seeds: Sequence[int] = (0, 1, 2),
    out: Path | None = None,
    arms: Sequence[Arm] = ARMS,
    epsilons: Sequence[float | None] = EPSILONS,
    shrink: Callable[[Study], Study] = lambda study: study,
    say: Callable[[str], object] = lambda line: None,
) -> dict[str, Any]:
    """The table of docs/pacit.md.

    Args:
        seeds: Public seeds; each draws records, probes and first adapters of its own.
        out: Rows are appended here as JSON lines when they are known; those in it are not run.
        arms: What is compared.
        epsilons: Of every record of every hospital; None without privacy.
        shrink: Changes the example study, for tests.
        say: Told each row.

    Returns:
        ``rows``, one a seed, arm and epsilon; ``summary``, mean and standard deviation over seeds.
    """
    with Workbench() as workbench:

        def run(arm: Arm, epsilon: float | None, seed: int) -> Row:
            def change(example: Study) -> Study:
                return shrink(with_privacy(_study(example, arm), epsilon, seed))

            outcome = run_study("pacit", change, workbench)
            return _scores(outcome.after) | cost(outcome)

        rows = collect_rows(arms, epsilons, seeds, run, out, say)
    return {"rows": rows, "summary": summary(rows, SHOWN)}


def _study(example: Study, arm: Arm) -> Study:
    """The example study with this arm's template."""
    task: dict[str, Any] = dict(example.task)
    task |= {
        "style": arm.style,
        "exemplars": {**task.get("exemplars", {}), "verdicts": arm.verdicts},
        "weights": {"answer": arm.answer_weight},
    }
    return replace(example, task=task)


def _scores(found: Mapping[str, float]) -> Row:
    """What the table shows, as far as the arm has it."""
    return {name: round(found[name], 4) for name in SHOWN if name in found}
