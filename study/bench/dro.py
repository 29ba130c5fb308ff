"""Safeguarding side by side: no prompt, words, vanilla tuning, DRO and DRO with terms left out.

One row is one federated study of four hospitals through the same runner as ``wardround run``; the
rows of no prompt and of the words come from the same evaluation and cost nothing more. All rows
share base, records, learning rate and number of steps. Compares what Zheng et al. (2024), "On
prompt-driven safeguarding for large language models", compare.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wardround.client.tasks.dro.generated import LONG_PROMPT, SHORT_PROMPT
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
ERRORS = ("complied_any", "complied_mean", "refused_any", "refused_mean")
SHOWN = (
    *(f"{way}_{error}" for way in ("none", "text", "soft") for error in ERRORS),
    "loss_refusal", "loss_harm", "loss_rest", "shift_harmful", "shift_harmless", "moved",
)  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """One way to learn a prompt.

    Attributes:
        name: As the table calls it.
        method: As ``[task]`` calls it.
        prompt: The words it begins as.
        loss: What differs in ``[task.loss]``.
        private_too: Whether it is also run with privacy.
    """

    name: str
    method: str = "dro"
    prompt: str = LONG_PROMPT
    loss: dict[str, float] = field(default_factory=dict)
    private_too: bool = True


ARMS = (
    Arm("DRO, long prompt"),
    Arm("DRO, short prompt", prompt=SHORT_PROMPT),
    Arm("vanilla tuning, long prompt", "vanilla"),
    Arm("DRO without L_r", loss={"refusal": 0.0}, private_too=False),
    Arm("DRO without L_h", loss={"harm": 0.0}, private_too=False),
    Arm("DRO without L_U", loss={"rest": 0.0}, private_too=False),
)


def dro_benchmark(
    seeds: Sequence[int] = (0, 1, 2),
    out: Path | None = None,
    arms: Sequence[Arm] = ARMS,
    epsilons: Sequence[float | None] = EPSILONS,
    shrink: Callable[[Study], Study] = lambda study: study,
    say: Callable[[str], object] = lambda line: None,
) -> dict[str, Any]:
    """The table of docs/dro.md.

    Args:
        seeds: Public seeds; each draws records and probes of its own.
        out: Rows are appended here as JSON lines when they are known; those in it are not run.
        arms: What is compared.
        epsilons: Of every record of every hospital; None without privacy.
        shrink: Changes the example study, for tests.
        say: Told each row.

    Returns:
        ``rows``, one a seed, arm and epsilon; ``summary``, mean and standard deviation over seeds.
    """
    rows: list[Row] = []
    with Workbench() as workbench:

        def run(arm: Arm, epsilon: float | None, seed: int) -> Row:
            def change(example: Study) -> Study:
                return shrink(with_privacy(_study(example, arm), epsilon, seed))

            outcome = run_study("dro", change, workbench)
            found = {name: round(outcome.after[name], 4) for name in SHOWN if name in outcome.after}
            return found | cost(outcome)

        for seed in seeds:
            for epsilon in epsilons:
                chosen = [arm for arm in arms if arm.private_too or epsilon is None]
                rows += collect_rows(chosen, [epsilon], [seed], run, out, say)
    return {"rows": rows, "summary": summary(rows, SHOWN)}


def _study(example: Study, arm: Arm) -> Study:
    """The example study with this arm."""
    task: dict[str, Any] = dict(example.task)
    task |= {"method": arm.method, "prompt": arm.prompt, "loss": arm.loss}
    return replace(example, task=task)
