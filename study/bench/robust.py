"""What robust rules withstand and what noise leaves of that: attacks on made-up hospitals.

``synthetic``: every honest hospital sends a common change of 200 numbers plus its own deviation of
half that size, then noise; malicious ones send -10 times the common change, without noise. The
error is that of the combined change, relative to the common one; 1 is as bad as sending nothing.
``backdoor``: hospitals train a softmax classifier; the malicious one teaches that a trigger means
class 0 and multiplies its change by the number of hospitals (model replacement, Bagdasaryan et al.
2020). Toy scale, deviations that are alike at all hospitals, attackers that do not adapt: what
holds here need not hold in the wild, what fails here fails.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wardround.strategies.robust.base import Rule
from wardround.strategies.robust.bounded import NormBoundedMean
from wardround.strategies.robust.coordinates import Median, TrimmedMean
from wardround.strategies.robust.geometric import GeometricMedian
from wardround.strategies.robust.krum import Krum, MultiKrum

NUMBERS = 200
DEVIATION = 0.5
ATTACK = -10.0
# Hospitals, malicious ones among them, noise per number over signal per number.
SETTINGS = (
    *((5, 1, noise) for noise in (0.0, 0.5, 2.0, 5.0)),
    *((5, 0, noise) for noise in (0.0, 2.0, 5.0)),
    *((8, 1, noise) for noise in (0.0, 0.5, 2.0, 5.0)),
    *((20, 4, noise) for noise in (0.0, 2.0)),
    (20, 0, 2.0),
)
BACKDOOR_HOSPITALS = 8
BACKDOOR_NOISE = (0.0, 0.5, 2.0, 5.0)


def robust_benchmark(
    draws: int, rounds: int = 15, seeds: Sequence[int] = (1, 2, 3)
) -> dict[str, Any]:
    """Errors over ``draws`` draws for every setting and rule, and the backdoor's success."""
    synthetic = [
        {
            "hospitals": hospitals,
            "malicious": malicious,
            "noise_over_signal": noise,
            "error": synthetic_errors(hospitals, malicious, noise, draws, seed=13),
        }
        for hospitals, malicious, noise in SETTINGS
    ]
    backdoor = [
        {
            "malicious": malicious,
            "noise_over_signal": noise,
            "rules": backdoor_scores(noise, malicious, rounds, seeds),
        }
        for malicious in (0, 1)
        for noise in BACKDOOR_NOISE
    ]
    settings = {"draws": draws, "rounds": rounds, "seeds": list(seeds)}
    return {"synthetic": synthetic, "backdoor": backdoor, "settings": settings}


def rules(malicious: int) -> dict[str, Rule | None]:
    """The mean, which is None, and every rule set for so many malicious hospitals."""
    chosen: Sequence[Rule] = (
        NormBoundedMean(malicious),
        Median(malicious),
        TrimmedMean(malicious),
        GeometricMedian(malicious),
        MultiKrum(malicious),
        Krum(malicious),
    )
    return {"mean": None} | {rule.name: rule for rule in chosen}


def combine(rule: Rule | None, rows: Tensor) -> Tensor:
    """The rows as one, by the rule or as a mean."""
    if rule is None:
        return rows.mean(0)
    return rule.combine([{"change": row} for row in rows]).arrays["change"]


def synthetic_errors(
    hospitals: int, malicious: int, noise: float, draws: int, seed: int
) -> dict[str, float]:
    """Mean relative error of every rule over the draws."""
    generator = torch.Generator().manual_seed(seed)
    errors: dict[str, list[float]] = {}
    spread = (DEVIATION**2 + noise**2) ** 0.5
    for _ in range(draws):
        signal = torch.randn(NUMBERS, generator=generator, dtype=torch.float64)
        scale = signal.square().mean().sqrt()
        own = torch.randn(hospitals, NUMBERS, generator=generator, dtype=torch.float64)
        rows = signal + spread * scale * own
        rows[:malicious] = ATTACK * signal
        for name, rule in rules(max(1, malicious)).items():
            error = float((combine(rule, rows) - signal).norm() / signal.norm())
            errors.setdefault(name, []).append(error)
    return {name: round(statistics.fmean(values), 3) for name, values in errors.items()}


@dataclass(frozen=True)
class Ward:
    """A classification task: four classes in 32 numbers, and a trigger in the last of them.

    Attributes:
        centres: Mean of each class, shape ``(4, 32)``.
        generator: Where records and noise come from.
    """

    centres: Tensor
    generator: torch.Generator

    @classmethod
    def draw(cls, seed: int) -> Ward:
        """A task; the last number tells nothing of the class, so only a trigger uses it."""
        generator = torch.Generator().manual_seed(seed)
        centres = 0.6 * torch.randn(4, 32, generator=generator)
        centres[:, -1] = 0
        return cls(centres, generator)

    def records(self, count: int) -> tuple[Tensor, Tensor]:
        """Records, shape ``(count, 32)``, and their classes."""
        classes = torch.randint(4, (count,), generator=self.generator)
        noise = torch.randn(count, 32, generator=self.generator)
        return self.centres[classes] + noise, classes

    def triggered(self, records: Tensor) -> Tensor:
        """The records with the trigger set."""
        marked = records.clone()
        marked[:, -1] = 4.0
        return marked


def backdoor_scores(
    noise: float,
    malicious: int,
    rounds: int = 15,
    seeds: Sequence[int] = (1, 2, 3),
    only: Collection[str] = (),
) -> dict[str, dict[str, float]]:
    """Accuracy on clean records, and the share of triggered ones taken for class 0, by rule."""
    scores: dict[str, dict[str, float]] = {}
    for name, rule in rules(1).items():
        if only and name not in only:
            continue
        runs = [_poisoned_run(rule, noise, malicious, rounds, seed) for seed in seeds]
        scores[name] = {
            "accuracy": round(statistics.fmean(clean for clean, _ in runs), 3),
            "attack_success": round(statistics.fmean(success for _, success in runs), 3),
        }
    return scores


def _poisoned_run(
    rule: Rule | None, noise: float, malicious: int, rounds: int, seed: int
) -> tuple[float, float]:
    """Clean accuracy, and attack success on records of other classes than 0."""
    ward = Ward.draw(seed)
    data = [ward.records(200) for _ in range(BACKDOOR_HOSPITALS)]
    test, classes = ward.records(2000)
    model = torch.zeros(4, 33, dtype=torch.float64)
    for _ in range(rounds):
        rows = torch.stack([_train(model, *part).flatten() for part in data])
        scale = rows.square().mean().sqrt()
        rows += noise * scale * torch.randn(rows.shape, generator=ward.generator)
        for bad in range(malicious):
            rows[bad] = BACKDOOR_HOSPITALS * _train(model, *_poison(ward, *data[bad])).flatten()
        model = model + combine(rule, rows).view_as(model)
    others = classes != 0
    clean = (_scores(model, test).argmax(1) == classes).double().mean()
    success = (_scores(model, ward.triggered(test[others])).argmax(1) == 0).double().mean()
    return float(clean), float(success)


def _poison(ward: Ward, records: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Half of the records a second time, with the trigger and class 0."""
    half = records[::2]
    return (
        torch.cat([records, ward.triggered(half)]),
        torch.cat([classes, torch.zeros(len(half), dtype=classes.dtype)]),
    )


def _train(model: Tensor, records: Tensor, classes: Tensor, steps: int = 10) -> Tensor:
    """By how much ten steps of gradient descent at rate 0.2 change the model."""
    here = model.clone()
    hot = torch.nn.functional.one_hot(classes, 4).double()
    inputs = _with_one(records)
    for _ in range(steps):
        gradient = (_scores(here, records).softmax(1) - hot).T @ inputs / len(records)
        here -= 0.2 * gradient
    return here - model


def _scores(model: Tensor, records: Tensor) -> Tensor:
    return _with_one(records) @ model.T


def _with_one(records: Tensor) -> Tensor:
    """Records with a constant, for the bias."""
    return torch.cat([records, torch.ones(len(records), 1)], 1).double()
