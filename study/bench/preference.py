"""Preference methods side by side: the example study, cut down, with and without privacy.

One row is one federated study of four hospitals through the same runner as ``wardround run``. All
rows share one learning rate, one beta and one number of steps, chosen before they were run, so that
no method is tuned more than another. Knows nothing of how losses come about. Compares what Tajwar
et al. (2024), "Preference fine-tuning of LLMs should leverage suboptimal, on-policy data", compare.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tomli_w

from wardround.client.pinned import WEIGHTS
from wardround.client.workbench import Workbench
from wardround.privacy.plan import Mechanism
from wardround.privacy.tables import read_toml
from wardround.privacy.units import Unit
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
        learnt_reward: Whether a reward that the hospitals learnt before scores those replies; it
            costs half of the row's epsilon, and tuning the other half.
        labels: Whether epsilon is that of labels alone, by randomised response.
    """

    name: str
    method: str
    on_policy: bool = False
    learnt_reward: bool = False
    labels: bool = False


ARMS = (
    Arm("DPO, offline", "dpo"),
    Arm("DPO, on-policy", "dpo", on_policy=True),
    Arm("Pref-FT", "pref-ft"),
    Arm("Best-of-N, on-policy", "best-of-n", on_policy=True),
    Arm("RWR, offline", "reward-weighted"),
    Arm("DPO, on-policy, learnt reward", "dpo", on_policy=True, learnt_reward=True),
    Arm("robust DPO, labels only", "robust", labels=True),
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
        reward_steps: Steps a round of learning a reward.
        reward_rate: Learning rate of a reward.
    """

    rounds: int = 3
    steps_per_round: int = 5
    learning_rate: float = 0.003
    beta: float = 0.5
    replies: int = 4
    probes: int = 60
    hospitals: int = 4
    records_per_hospital: int = 240
    reward_steps: int = 10
    reward_rate: float = 0.1


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
            with tempfile.TemporaryDirectory(prefix="wardround-reward-") as scratch:
                return _run(arm, epsilon, seed, size, workbench, Path(scratch))

        alone = [arm for arm in arms if arm.labels]  # there is nothing of theirs without privacy
        rest, private = [arm for arm in arms if not arm.labels], [e for e in epsilons if e]
        rows = collect_rows(rest, epsilons, seeds, run, out, say)
        rows += collect_rows(alone, private, seeds, run, out, say)
    settings = vars(size) | {"seeds": list(seeds)}
    return {"rows": rows, "summary": summary(rows, SHOWN), "settings": settings}


def _run(
    arm: Arm,
    epsilon: float | None,
    seed: int,
    size: Size,
    workbench: Workbench,
    scratch: Path,
) -> Row:
    """One row's scores."""
    found: Row = {}
    if arm.learnt_reward:
        epsilon = None if epsilon is None else epsilon / 2

        def reward(example: Study) -> Study:
            return with_privacy(_reward_study(example, size), epsilon, seed)

        learnt = run_study("preference", reward, workbench, scratch / "reward")
        found["reward_accuracy"] = round(learnt.after["accuracy"], 4)
        found |= {f"reward_{name}": value for name, value in cost(learnt).items()}

    def change(example: Study) -> Study:
        study = with_privacy(_study(example, arm, size, scratch / "reward"), epsilon, seed)
        return _on_labels(study, scratch / "policy.toml") if arm.labels else study

    outcome = run_study("preference", change, workbench)
    return found | {name: round(outcome.after[name], 4) for name in SHOWN} | cost(outcome)


def _on_labels(study: Study, policy: Path) -> Study:
    """The study protecting labels alone, at hospitals whose policy allows that."""
    tables = read_toml(study.policy)
    tables["budget"]["unit"] = Unit.LABEL.value
    tables["allow"]["mechanisms"] = [Mechanism.LABELS.value]
    policy.write_text(tomli_w.dumps(tables), encoding="utf-8")
    privacy = replace(study.privacy, mechanism=Mechanism.LABELS, unit=Unit.LABEL)
    return replace(study, privacy=privacy, hospitals=replace(study.hospitals, policy=policy))


def _reward_study(example: Study, size: Size) -> Study:
    """What the hospitals learn a reward by, from the records that they tune on afterwards."""
    return replace(
        example,
        study=replace(example.study, name="reward", task="reward", rounds=size.rounds),
        hospitals=replace(example.hospitals, count=size.hospitals),
        privacy=replace(example.privacy, steps_per_round=size.reward_steps),
        adapter={},
        training={**example.training, "learning_rate": size.reward_rate},
        task={"generated": _generated(example, size)},
    )


def _generated(example: Study, size: Size) -> dict[str, Any]:
    """How large the made-up world is."""
    return {
        **example.task["generated"],
        "probes": size.probes,
        "records_per_hospital": size.records_per_hospital,
    }


def _study(example: Study, arm: Arm, size: Size, reward: Path) -> Study:
    """The example study with this arm and size."""
    task: dict[str, Any] = dict(example.task)
    task |= {"method": arm.method, "loss": {**task["loss"], "beta": size.beta}}
    task["sampling"] = {
        **task["sampling"],
        "share": float(arm.on_policy),
        "replies": size.replies,
        "reuse": size.steps_per_round,
    }
    task["generated"] = _generated(example, size)
    if arm.learnt_reward:
        task["sampling"] |= {"reward": "federated"}
        digest = hashlib.sha256((reward / WEIGHTS).read_bytes()).hexdigest()
        task["reward_model"] = {"folder": str(reward), "sha256": digest}
    return replace(
        example,
        study=replace(example.study, rounds=size.rounds),
        hospitals=replace(example.hospitals, count=size.hospitals),
        privacy=replace(example.privacy, steps_per_round=size.steps_per_round),
        training={**example.training, "learning_rate": size.learning_rate},
        task=task,
    )
