"""Privacy reports: what a hospital says it did in a round, signed, and how others check it later.

A hospital's report carries the events themselves, so whoever reads it can compute epsilon anew
instead of believing it. Reports of many rounds must fit together: epsilon never falls, the ledger
only grows. Writes no files; the coordinator's book and page are made from these values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from wardround.privacy.accountant import accountant_name, epsilon
from wardround.privacy.chain import LedgerHead
from wardround.privacy.disclosures import nist_points, not_covered, plain_summary, threats
from wardround.privacy.errors import BadMessage, UntrustedPeer
from wardround.privacy.events import Event, covers, from_json, to_json
from wardround.privacy.guarantees import check_guarantees, guarantees
from wardround.privacy.plan import Mode, RoundPlan
from wardround.privacy.second_opinion import OPINIONS, epsilon_by
from wardround.privacy.signing import SigningKey, canonical, verify
from wardround.privacy.tradeoff import risk_figures

REPORT_SCHEMA = 1
_CONTEXT = b"wardround privacy report\n"
_TOLERANCE = 1e-6

Account = Callable[[Event, float], float]


@dataclass(frozen=True)
class Standing:
    """What a hospital's books say after a round was charged.

    Attributes:
        hospital: Its name.
        dataset: Data set that paid.
        provenance: Whose data it is.
        declared_units: Public number of units.
        epsilon_budget: The most the data set may ever cost.
        delta: What epsilon is computed at.
        study: Everything this run was charged.
        life: Everything the data set was ever charged.
        ledger_head: Where the ledger stands.
    """

    hospital: str
    dataset: str
    provenance: str
    declared_units: int
    epsilon_budget: float
    delta: float
    study: Event
    life: Event
    ledger_head: LedgerHead


def hospital_report(
    plan: RoundPlan, standing: Standing, account: Account = epsilon
) -> dict[str, Any]:
    """A hospital's report on one round, ready to be signed; infinite epsilons are None.

    Privacy: made from plan, policy and ledger only, so it may leave as it is.
    """
    privacy = plan.privacy
    return {
        "schema": REPORT_SCHEMA,
        "hospital": standing.hospital,
        "study": plan.study,
        "run": plan.run,
        "round": plan.round,
        "plan_sha256": plan.sha256,
        "mechanism": "none" if privacy.mode is Mode.NONE else privacy.mechanism.description,
        "private": privacy.mode is not Mode.NONE,
        "mode": privacy.mode.value,
        "unit": privacy.unit.value,
        "adjacency": privacy.adjacency.value,
        "clip_norm": privacy.clip_norm,
        "clip_rule": privacy.clip_rule.value,
        "adaptive": privacy.adaptive is not None,
        "noise_multiplier": privacy.noise_multiplier,
        "effective_multiplier": privacy.effective_multiplier,
        "sampling_rate": privacy.sampling_rate,
        "steps": privacy.steps,
        "dataset": standing.dataset,
        "provenance": standing.provenance,
        "declared_units": standing.declared_units,
        "epsilon_study": _finite(account(standing.study, standing.delta)),
        "epsilon_life": _finite(account(standing.life, standing.delta)),
        "epsilon_budget": standing.epsilon_budget,
        "delta": standing.delta,
        "secure_aggregation": None if plan.secure is None else asdict(plan.secure),
        "guarantees": guarantees(privacy, standing.study, standing.delta, account),
        "accountant": accountant_name(),
        "events_study": to_json(standing.study),
        "events_life": to_json(standing.life),
        "ledger_head": asdict(standing.ledger_head),
        "not_covered": not_covered(privacy.unit),
    }


def sign_report(report: Mapping[str, Any], key: SigningKey) -> dict[str, Any]:
    """The report with its signer's key and signature beside its own fields."""
    body = {name: value for name, value in report.items() if name not in ("key", "signature")}
    body["key"] = key.public
    return body | {"signature": key.sign(_CONTEXT + canonical(body))}


def check_report(
    report: Mapping[str, Any], public: str | None = None, recompute: bool = True
) -> None:
    """Raise unless a signed report is genuine and its epsilons follow from its events.

    Args:
        report: As ``sign_report`` made it.
        public: Whose signature to expect; by default the key it names.
        recompute: Whether to compute the epsilons anew; takes a second where nothing is known yet.

    Raises:
        BadMessage: Not a report, or its figures do not follow from its events.
        UntrustedPeer: Not signed by that key.
    """
    if report.get("schema") != REPORT_SCHEMA:
        raise BadMessage(f"not a privacy report of schema {REPORT_SCHEMA}")
    body = {name: value for name, value in report.items() if name != "signature"}
    try:
        what = f"report of {report['hospital']} on round {report['round']}"
        key = str(report["key"])
        if public is not None and key != public:
            raise UntrustedPeer(f"{what}: signed with key {key[:12]}…, not {public[:12]}…")
        verify(key, _CONTEXT + canonical(body), str(report["signature"]), what)
        study, life = from_json(report["events_study"]), from_json(report["events_life"])
        for name, event in (("epsilon_study", study), ("epsilon_life", life)) if recompute else ():
            _require_equal(report[name], epsilon(event, report["delta"]), f"{what}: {name}")
        if recompute:
            check_guarantees(report, study, epsilon)
        if not covers(life, study):
            raise BadMessage(f"{what}: the data set's life lacks events of this study")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise BadMessage(f"unreadable privacy report: {error!r}") from error


def check_reports(
    reports: Sequence[Mapping[str, Any]],
    keys: Mapping[str, str] | None = None,
    recompute: bool = True,
) -> list[str]:
    """What is wrong with the reports of a run; empty when all is well. Works offline.

    Args:
        reports: Signed hospital reports, rounds in order.
        keys: Public key of each hospital; by default each hospital's first report says.
        recompute: As for ``check_report``.
    """
    problems: list[str] = []
    known = dict(keys or {})
    last: dict[str, Mapping[str, Any]] = {}
    for report in reports:
        name = str(report.get("hospital"))
        public = known.setdefault(name, str(report.get("key"))) if keys is None else known.get(name)
        try:
            if public is None:
                raise UntrustedPeer(f"report of {name}: nobody enrolled this hospital")
            check_report(report, public, recompute)
            _require_continues(last.get(name), report)
        except (BadMessage, UntrustedPeer) as error:
            problems.append(str(error))
            continue
        last[name] = report
    return problems


def officer_document(report: Mapping[str, Any]) -> dict[str, Any]:
    """Everything a data protection officer's page needs, from one hospital's newest report.

    The report itself, risk figures, second opinions, NIST's points, threats, and a plain summary.
    Takes a few seconds: persons with many records are costly to account for.
    """
    life = from_json(report["events_life"])
    risk = risk_figures(life, report["delta"]).to_json()
    return {
        "report": dict(report),
        "summary": plain_summary(report, risk),
        "risk": risk,
        "second_opinions": second_opinions(life, report["delta"]),
        "nist": nist_points(report),
        "threats": [asdict(threat) for threat in threats(report)],
    }


def second_opinions(event: Event, delta: float) -> dict[str, float | str | None]:
    """Epsilon by every accountant that can say; why not, where one cannot."""
    return {name: _opinion(name, event, delta) for name in OPINIONS}


@lru_cache(maxsize=256)
def _opinion(name: str, event: Event, delta: float) -> float | str | None:
    """What one accountant says; some take a second, and hospitals often have equal events."""
    try:
        return _finite(epsilon_by(name, event, delta))
    except ValueError as error:
        return str(error)


def _require_continues(before: Mapping[str, Any] | None, report: Mapping[str, Any]) -> None:
    """Raise ``BadMessage`` unless a hospital's report can follow its last one."""
    if before is None:
        return
    what = f"report of {report['hospital']} on round {report['round']}"
    if report["round"] <= before["round"] and report["run"] == before["run"]:
        raise BadMessage(f"{what}: comes after round {before['round']}")
    if report["ledger_head"]["seq"] <= before["ledger_head"]["seq"]:
        raise BadMessage(f"{what}: its ledger is shorter than it was: rolled back")
    if not covers(from_json(report["events_life"]), from_json(before["events_life"])):
        raise BadMessage(f"{what}: events it reported earlier are missing")


def _require_equal(claimed: object, computed: float, what: str) -> None:
    """Raise ``BadMessage`` unless a claimed epsilon is the computed one."""
    if claimed is None:
        if math.isfinite(computed):
            raise BadMessage(f"{what} is claimed infinite; its events give {computed:.6f}")
    elif not isinstance(claimed, int | float) or not math.isclose(
        claimed, computed, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE
    ):
        raise BadMessage(f"{what} is {claimed}; its events give {computed:.6f}")


def _finite(value: float) -> float | None:
    """JSON knows no infinity."""
    return value if math.isfinite(value) else None
