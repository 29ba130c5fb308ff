"""The attacks of ``privacy`` with and without the privacy a study asks for, beside their limits.

Tiny models on made-up numbers, protected just as much as the study protects its records over its
whole life; the study's own model and data are not touched. What is compared is attack and theorem:
a figure above its limit means that the mechanism is broken.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from wardround.privacy.accountant import epsilon
from wardround.privacy.events import Repeated
from wardround.privacy.exposure import ExposureSetup, attack_secrets
from wardround.privacy.inversion import Factor, InversionSetup, attack_gradient
from wardround.privacy.limits import mu_of_epsilon
from wardround.privacy.membership import MembershipSetup, attack_membership
from wardround.privacy.plan import Mode
from wardround.privacy.shadows import Mechanism
from wardround.study.config import Study

_TOLERANCE = 5.0  # standard errors; exceeded by chance about three times in ten million


@dataclass(frozen=True)
class AttackRow:
    """One figure of one attack.

    Attributes:
        attack: What was tried, and in which unit the figure is.
        protection: What stood in its way.
        figure: What it reached.
        error: Standard error of that.
        limit: The most any attack could reach on average.
        luck: What guessing reaches.
    """

    attack: str
    protection: str
    figure: float
    error: float
    limit: float
    luck: float

    @property
    def holds(self) -> bool:
        """Whether the figure is compatible with the limit."""
        return self.figure <= self.limit + _TOLERANCE * self.error


def attack_study(path: Path, seed: int | None) -> dict[str, Any]:
    """Every attack against no privacy, clipping alone and the study's privacy; one document.

    Raises:
        BadInput: The study cannot be used.
    """
    started = time.monotonic()
    study = Study.read(path)
    spent = study_epsilon(study)
    protections: list[tuple[str, float, float]] = [
        ("nothing", math.inf, math.inf),
        ("clipping alone", 1.0, math.inf),
    ]
    if spent is not None:
        mu = mu_of_epsilon(spent, study.privacy.delta)
        protections.append((f"ε {spent:.2f}, this study", 1.0, mu))
    generator = torch.Generator().manual_seed(seed or 0)
    rows = [
        row
        for name, clip_norm, mu in protections
        for row in _attacks(name, clip_norm, mu, generator)
    ]
    return {
        "study": study.study.name,
        "epsilon": spent,
        "delta": study.privacy.delta,
        "scope": "tiny models on made-up numbers; no record was read",
        "attacks": [
            {
                "attack": row.attack,
                "protection": row.protection,
                "figure": row.figure,
                "standard_error": row.error,
                "limit": row.limit,
                "luck": row.luck,
                "holds": row.holds,
            }
            for row in rows
        ],
        "holds": all(row.holds for row in rows),
        "seconds": round(time.monotonic() - started, 2),
    }


def study_epsilon(study: Study) -> float | None:
    """What the whole study costs a unit of a hospital that takes part in every round."""
    if study.privacy.mode is Mode.NONE:
        return None
    plan = study.privacy_plan(study.noise_multiplier(), 1)
    return epsilon(Repeated(plan.event, study.study.rounds), study.privacy.delta)


def show_attacks(console: Console, document: Mapping[str, Any]) -> None:
    """One line an attack: luck, what it reaches against each protection, and the last's limit."""
    rows = document["attacks"]
    protections = list(dict.fromkeys(row["protection"] for row in rows))
    table = Table("attack", "luck", *protections, "limit")
    for attack in dict.fromkeys(row["attack"] for row in rows):
        found = [row for row in rows if row["attack"] == attack]
        table.add_row(
            attack,
            f"{found[-1]['luck']:.3f}",
            *(
                f"{row['figure']:.3f} ± {row['standard_error']:.3f}"
                + ("" if row["holds"] else " EXCEEDED")
                for row in found
            ),
            f"{found[-1]['limit']:.3f}",
        )
    console.print(table)
    console.print(
        f"δ {document['delta']:g}; {document['scope']}. The limit belongs to the last protection: "
        "an average that no attack can beat. Equal copies of a record are protected as a group, "
        "so theirs is higher.",
        highlight=False,
    )


def _attacks(
    name: str, clip_norm: float, mu: float, generator: torch.Generator
) -> Iterator[AttackRow]:
    """Every attack against a mechanism that lets ``mu`` through over the whole training."""

    def mechanism(steps: int) -> Mechanism:
        return Mechanism(clip_norm, 0.0 if math.isinf(mu) else math.sqrt(steps) / mu)

    crowd = MembershipSetup()
    found = attack_membership(crowd, mechanism(crowd.training.steps), generator)
    yield AttackRow(
        "LiRA, area under curve",
        name,
        found.area,
        found.area_error,
        found.area_limit,
        0.5,
    )
    yield AttackRow(
        f"LiRA, true positives at {crowd.false_positives:.0%} false",
        name,
        found.true_positives,
        found.true_positives_error,
        found.true_positives_limit,
        crowd.false_positives,
    )
    for copies in (1, 16):
        planted = ExposureSetup(copies=copies)
        secret = attack_secrets(planted, mechanism(planted.training.steps), generator)
        yield AttackRow(
            f"secret seen {copies}×, bits exposed",
            name,
            secret.exposure,
            secret.exposure_error,
            secret.exposure_limit,
            math.log2(math.e),
        )
    for factor in Factor:
        batch = InversionSetup(factor=factor)
        words = attack_gradient(batch, mechanism(1), generator)
        yield AttackRow(
            f"words from {factor.value}'s gradient",
            name,
            words.recall,
            words.recall_error,
            words.recall_limit,
            batch.chance,
        )
