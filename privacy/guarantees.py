"""What one hospital's noise is worth, against whom: a table for reports on distributed noise.

With local noise there is one figure, and it holds against everybody. With distributed noise the
figure depends on how many other hospitals' noise an observer lacks; the ledger charges one row of
this table, the one the plan names and the policy has accepted, and the report shows them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from wardround.privacy.errors import BadMessage
from wardround.privacy.events import (
    Event,
    Gaussian,
    PoissonSampled,
    Primitive,
    from_counts,
    primitive_counts,
)
from wardround.privacy.mechanisms import Mode, PrivacyPlan

Account = Callable[[Event, float], float]

_TOLERANCE = 1e-6


def guarantees(
    plan: PrivacyPlan, study: Event, delta: float, account: Account
) -> list[dict[str, Any]]:
    """One row for each number of hospitals whose noise may be relied on; empty unless distributed.

    Args:
        plan: One round's plan; all rounds of the run are taken to have been like it.
        study: What the run was charged.
        delta: What epsilon is computed at.
        account: Computes epsilon.
    """
    if plan.mode is not Mode.DISTRIBUTED:
        return []
    rows = []
    for relied in sorted({1, plan.honest_hospitals, max(1, plan.shares - 1), plan.shares}):
        multiplier = plan.relying_on(relied)
        rows.append(
            {
                "against": _against(relied, plan.shares),
                "relies_on": relied,
                "noise_multiplier": multiplier,
                "epsilon_study": _finite(
                    account(reread(study, plan.effective_multiplier, multiplier), delta)
                ),
                "charged": relied == plan.honest_hospitals,
            }
        )
    return rows


def reread(event: Event, charged: float, seen: float) -> Event:
    """``event`` as it looks to somebody who lacks more or less of the noise than was charged.

    Args:
        event: What was charged.
        charged: The noise multiplier it was charged at; steps with other ones stay as they are.
        seen: The one that counts against that somebody.
    """
    counts: dict[Primitive, int] = {}
    for part, count in primitive_counts(event).items():
        as_seen = _with_multiplier(part, charged, seen)
        counts[as_seen] = counts.get(as_seen, 0) + count
    return from_counts(counts)


def check_guarantees(report: Mapping[str, Any], study: Event, account: Account) -> None:
    """Raise ``BadMessage`` unless the rows of a report follow from its other figures."""
    for row in report["guarantees"]:
        shares = report["secure_aggregation"]["threshold"]
        multiplier = report["noise_multiplier"] * math.sqrt(row["relies_on"] / shares)
        charged = report["effective_multiplier"]
        found = _finite(account(reread(study, charged, multiplier), report["delta"]))
        expected = {"noise_multiplier": multiplier, "epsilon_study": found}
        for name, value in expected.items():
            same = row[name] == value or (
                row[name] is not None
                and value is not None
                and math.isclose(row[name], value, rel_tol=_TOLERANCE)
            )
            if not same:
                raise BadMessage(
                    f"report of {report['hospital']} on round {report['round']}: {name} is "
                    f"{row[name]} relying on {row['relies_on']} hospitals; it should be {value}"
                )


def _with_multiplier(part: Primitive, charged: float, seen: float) -> Primitive:
    """One primitive, with other noise if it was charged at ``charged``."""
    match part:
        case Gaussian(multiplier) if multiplier == charged:
            return Gaussian(seen)
        case PoissonSampled(rate, Gaussian(multiplier)) if multiplier == charged:
            return PoissonSampled(rate, Gaussian(seen))
    return part


def _against(relied: int, shares: int) -> str:
    """Who is meant by a row."""
    if relied == 1:
        return "the coordinator together with every other hospital; needs no secure sum"
    if relied == shares:
        return "whoever sees the sums and added no noise: users of the model, and the coordinator"
    if relied == shares - 1:
        return "another hospital of the sum, or the coordinator together with one"
    return f"the coordinator together with {shares - relied} of the hospitals in the sum"


def _finite(value: float) -> float | None:
    """JSON knows no infinity."""
    return value if value < float("inf") else None
