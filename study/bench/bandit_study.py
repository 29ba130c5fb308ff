"""The bandit's findings as tables: sampling, negative gradients, reuse, and two divergences.

Every table is made of :class:`Recipe` rows; each seed draws a reference and replies of its own.
Knows nothing of files; figures are drawn by ``bandit_figures``. Source: Tajwar et al. (2024),
sections 5.1, 5.2 and 6.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from wardround.client.tasks.preference.losses import LossSettings
from wardround.client.tasks.preference.methods import MethodSettings
from wardround.study.bench.bandit import (
    PEAKS,
    Course,
    Recipe,
    follow_divergence,
    learn,
    optimal_policy,
    reference_policy,
    reward_of,
)

_UNCUT = 1e6  # above exp(1 / 0.1), so that no weight of regression is cut
RECIPES: Mapping[str, Recipe] = {
    "best-of-n": Recipe("best-of-n"),
    "ipo": Recipe("ipo", loss=LossSettings(beta=0.05)),  # a margin of 10 between better and worse
    "dpo": Recipe("dpo", loss=LossSettings(beta=0.1)),
    "reward-weighted 0.1": Recipe("reward-weighted", weights=MethodSettings(0.1, _UNCUT)),
    "reward-weighted 1": Recipe("reward-weighted", weights=MethodSettings(1.0, _UNCUT)),
    "reinforce": Recipe("reinforce"),
}
REUSE = (1, 2, 5, 15, 50, 150, 300)
GAPS = (0.0, 0.2)
KL_STEPS = (1, 10, 100, 500, 1000, 2000)
TARGET_BETA = 0.1


def bandit_benchmark(
    seeds: Sequence[int], say: Callable[[str], object] = lambda line: None
) -> dict[str, Any]:
    """All tables as one JSON document.

    Args:
        seeds: Public seeds; at least one.
        say: Told what is being done.
    """
    found: dict[str, Any] = {"reference": reference_facts(seeds)}
    for name, table in (
        ("on_policy", on_policy_table),
        ("negative_gradient", negative_gradient_table),
        ("reuse", reuse_table),
        ("divergence", divergence_table),
    ):
        say(name.replace("_", " "))
        found[name] = table(seeds)
    return found | {"settings": {"seeds": list(seeds), "steps": Recipe("dpo").steps}}


def reference_facts(seeds: Sequence[int]) -> dict[str, Any]:
    """Where the reference's mass is and what it earns."""
    references = [reference_policy(_generator(seed)) for seed in seeds]
    facts = {f"reward {name}": [r @ reward_of(name) for r in references] for name in PEAKS}
    for name, peak in PEAKS.items():
        facts[f"mass within 10 of {name}'s peak"] = [
            reference[peak - 10 : peak + 11].sum() for reference in references
        ]
    return {name: _spread([float(value) for value in values]) for name, values in facts.items()}


def final_rewards(reward: str, recipe: Recipe, seeds: Sequence[int]) -> list[float]:
    """Expected reward at the end, one a seed."""
    return [_learn(reward, recipe, seed).final for seed in seeds]


def on_policy_table(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Offline beside asking the policy anew every 15 steps; queries differ and are counted."""
    rows = []
    for reward in PEAKS:
        for name, recipe in RECIPES.items():
            for reuse in (0, 15):
                courses = [_learn(reward, replace(recipe, reuse=reuse), s) for s in seeds]
                curve = torch.stack([course.rewards for course in courses]).mean(0)
                rows.append(
                    {
                        "reward": reward,
                        "method": name,
                        "sampling": "on" if reuse else "off",
                        "queries": courses[0].queries,
                        "curve": _thin(curve),
                        **_spread([course.final for course in courses]),
                    }
                )
    return rows


def negative_gradient_table(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Offline, with and without leaving out pairs of nearly equal reward."""
    rows = []
    for reward in PEAKS:
        for prompts in (10, 100):
            for name in ("best-of-n", "ipo", "dpo", "reward-weighted 0.1", "reward-weighted 1"):
                recipe = replace(RECIPES[name], steps=200, prompts=prompts)
                for gap in GAPS if name in ("ipo", "dpo") else (0.0,):
                    found = _spread(final_rewards(reward, replace(recipe, least_gap=gap), seeds))
                    rows.append(
                        {
                            "reward": reward,
                            "prompts": prompts,
                            "method": name,
                            "least_gap": gap,
                            **found,
                        }
                    )
    return rows


def reuse_table(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Steps on one batch, of 300 in all; 300 is offline."""
    return [
        {
            "method": name,
            "reuse": reuse,
            **_spread(final_rewards("R1", replace(RECIPES[name], reuse=reuse), seeds)),
        }
        for name in ("best-of-n", "ipo", "reinforce")
        for reuse in REUSE
    ]


def divergence_table(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Expected R1 on the way to one target, by forward and by reverse divergence."""
    reward, rows = reward_of("R1"), []
    curves: dict[str, list[torch.Tensor]] = {"forward": [], "reverse": []}
    for seed in seeds:
        reference = reference_policy(_generator(seed))
        target = optimal_policy(reference, reward, TARGET_BETA)
        for name, walked in curves.items():
            reverse = name == "reverse"
            walked.append(follow_divergence(reference, target, reward, reverse, max(KL_STEPS)))
    for step in KL_STEPS:
        row: dict[str, Any] = {"step": step}
        for name, walked in curves.items():
            row[name] = _spread([float(curve[step]) for curve in walked])
        rows.append(row)
    return rows


def _learn(reward: str, recipe: Recipe, seed: int) -> Course:
    """One course from a reference of this seed."""
    generator = _generator(seed)
    return learn(reference_policy(generator), reward_of(reward), recipe, generator)


def _generator(seed: int) -> torch.Generator:
    """Public randomness of one seed."""
    return torch.Generator().manual_seed(seed)


def _thin(curve: torch.Tensor) -> list[float]:
    """Every fifteenth value."""
    return [round(float(value), 4) for value in curve[::15]]


def _spread(values: Sequence[float]) -> dict[str, float]:
    """Mean and standard deviation."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": round(statistics.fmean(values), 4), "sd": round(spread, 4)}
