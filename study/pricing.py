"""What a study will cost each hospital before anybody trains: epsilon, bytes, minutes, memory.

Epsilon is computed, by the function that will account for the run, from the events the run will
cause. The rest is rehearsed: three rounds of the same study on this machine, on made-up or public
records in a folder that is thrown away, with no ledger of any hospital touched.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import tomli_w
from rich.console import Console
from rich.table import Table

from wardround.client.workbench import Workbench
from wardround.privacy.accountant import accountant_name, epsilon
from wardround.privacy.events import NOTHING
from wardround.privacy.plan import Mode
from wardround.privacy.policy import Decision, Policy
from wardround.privacy.tables import read_toml
from wardround.study.config import Study
from wardround.study.local import begin, first_plan
from wardround.study.run_folder import RunFolder
from wardround.study.runner import Outcome, Stage, execute, peak_memory

_REHEARSED = 3  # the first round warms up, the second is timed, the third is timed with evaluation


def price_study(study_path: Path, policy: Path | None, data: Path | None) -> dict[str, Any]:
    """The price of a study as one JSON document.

    Args:
        study_path: The study file.
        policy: A hospital's policy to ask, instead of the one the study names.
        data: The public file that will be dealt out, or None for made-up records.
    """
    study = Study.read(study_path)
    noise_multiplier = study.noise_multiplier()
    with tempfile.TemporaryDirectory(prefix="wardround-price-") as scratch, Workbench() as bench:
        folder = begin(_rehearsal(study, noise_multiplier), Path(scratch), data, bench, _anything)
        outcome = execute(folder, Stage(workbench=bench))
        hospitals = [
            _price_hospital(study, folder, name, noise_multiplier, policy, outcome)
            for name in folder.facts.hospitals
        ]
    return {
        "study": study.study.name,
        "rounds": study.study.rounds,
        "noise_multiplier": noise_multiplier,
        "accountant": accountant_name(),
        "hospitals": hospitals,
        "minutes": _seconds(study, outcome) / 60,
        "memory_bytes": peak_memory(),
    }


def show_price(console: Console, document: Mapping[str, Any]) -> None:
    """The price as a table."""
    table = Table("hospital", "units", "ε", "δ", "up", "down", "minutes", "policy")
    for row in document["hospitals"]:
        table.add_row(
            row["name"],
            str(row["declared_units"]),
            "NOT PRIVATE" if row["epsilon"] is None else f"{row['epsilon']:.4f}",
            f"{row['delta']:g}",
            f"{row['bytes']['up'] / 1e6:.2f} MB",
            f"{row['bytes']['down'] / 1e6:.2f} MB",
            f"{row['minutes']:.1f}",
            "allows it" if row["allowed"] else "refuses: " + "; ".join(row["reasons"]),
        )
    console.print(table)
    console.print(
        f"noise multiplier {document['noise_multiplier']:g}; all hospitals in turn on this "
        f"machine: {document['minutes']:.1f} minutes, {document['memory_bytes'] / 2**20:.0f} MiB",
        highlight=False,
    )


def _rehearsal(study: Study, noise_multiplier: float) -> Study:
    """The first rounds of the study, with the noise of the whole; none may be missing."""
    section = replace(study.study, rounds=_REHEARSED, evaluate_every=_REHEARSED)
    study = replace(study, stop=None)
    if study.privacy.mode is Mode.NONE or study.privacy.labels:
        return replace(study, study=section)
    privacy = replace(study.privacy, epsilon=None, noise_multiplier=noise_multiplier)
    return replace(study, study=section, privacy=privacy)


def _anything(draft: RunFolder) -> None:
    """A price is told even when a policy would refuse; the refusal is part of the answer."""
    for name in draft.facts.hospitals:
        _unbound(draft.hospital(name).policy)


def _unbound(path: Path) -> None:
    """Let the rehearsal's throw-away hospital take part whatever its real policy says."""
    tables = read_toml(path)
    tables["budget"]["epsilon"] = 1e6
    tables["allow"] |= {"min_noise_multiplier": 1e-9, "max_rounds": 10**6, "min_units": 1}
    path.write_text(tomli_w.dumps(tables), encoding="utf-8")


def _price_hospital(
    study: Study,
    rehearsed: RunFolder,
    name: str,
    noise_multiplier: float,
    policy: Path | None,
    outcome: Outcome,
) -> dict[str, Any]:
    """One hospital's row."""
    units = Policy.read(rehearsed.hospital(name).policy).data.declared_units
    rounds = study.study.rounds
    private = study.privacy.mode is not Mode.NONE
    event = study.privacy_plan(noise_multiplier, units).over(rounds)
    decision = _ask(study, Policy.read(policy or study.policy), name, noise_multiplier, units)
    last = outcome.records[-1]
    sent = next(answer.bytes_up for answer in last.answers if answer.hospital == name)
    return {
        "name": name,
        "declared_units": units,
        "epsilon": epsilon(event, study.privacy.delta) if private else None,
        "delta": study.privacy.delta,
        "bytes": {"up": sent * rounds, "down": last.bytes_down // len(last.answers) * rounds},
        "minutes": outcome.records[1].seconds * rounds / len(last.answers) / 60,
        "memory_bytes": peak_memory(),
        "allowed": decision.allowed,
        "reasons": list(decision.reasons),
    }


def _ask(study: Study, policy: Policy, name: str, noise_multiplier: float, units: int) -> Decision:
    """What a policy says to the whole study: its last round, with all the others spent."""
    counted = replace(policy, data=replace(policy.data, declared_units=units))
    plan = first_plan(study, name, noise_multiplier, units)
    earlier = study.study.rounds - 1
    spent = plan.privacy.over(earlier) if earlier else NOTHING
    paid = plan.privacy.paid_once and earlier > 0
    return counted.decide(replace(plan, round=study.study.rounds), spent, charged=paid)


def _seconds(study: Study, outcome: Outcome) -> float:
    """Wall time of the whole study, from what the rehearsal took."""
    rounds = [record.seconds for record in outcome.records]
    evaluation = max(0.0, rounds[2] - rounds[1])
    section = study.study
    looks = len({n for n in range(1, section.rounds + 1) if n % section.evaluate_every == 0}
                | {section.rounds})  # fmt: skip
    around = outcome.seconds - sum(rounds)
    return around + section.rounds * rounds[1] + looks * evaluation
