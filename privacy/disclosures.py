"""What a privacy report says besides numbers: whom it covers, against what, what it leaves out.

Plain data and sentences for data protection officers. The points follow NIST SP 800-226 (2025),
"Guidelines for evaluating differential privacy guarantees": parameters, unit, algorithm, trust
model, implementation hazards, access. Knows nothing of how pages are laid out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wardround.privacy.units import Unit


@dataclass(frozen=True)
class Threat:
    """Something that could go wrong for a patient.

    Attributes:
        threat: What somebody does.
        covered: Whether this system's guarantee holds against it.
        how: What it rests on, or why it is not covered.
    """

    threat: str
    covered: bool
    how: str


THREATS = (
    Threat(
        "The coordinator, or whoever reads its mail, studies the updates of one hospital",
        True,
        "noise is added inside the hospital; the bound holds for all its updates together",
    ),
    Threat(
        "Another hospital, or a user of the finished model, asks whether a patient was in the data",
        True,
        "they see less than the coordinator sees, and the same bound holds",
    ),
    Threat(
        "A record is to be reconstructed from an update or from the model",
        True,
        "whoever could would also know that it was there, which the bound limits",
    ),
    Threat(
        "The coordinator asks for more than was agreed, again and again",
        True,
        "the hospital's own policy and ledger decide; what is beyond the budget is refused",
    ),
    Threat(
        "A backup of the hospital's ledger is restored, so that spent budget seems free",
        True,
        "signed plans carry the ledger's last known state; an older ledger is refused",
    ),
    Threat(
        "The model learns what is true of all patients, and somebody concludes something of one",
        False,
        "that is what the study is for; it would be learnt without this patient too",
    ),
    Threat(
        "Somebody breaks into the hospital's own machine",
        False,
        "data and keys are there in the clear; network and access rules of the hospital apply",
    ),
    Threat(
        "A hospital sends made-up updates to spoil the model",
        False,
        "privacy is not affected; robust aggregation limits the harm",
    ),
    Threat(
        "It becomes known that a hospital takes part, or how many patients it declares",
        False,
        "both are public by design",
    ),
)

_COORDINATOR = THREATS[0]
_ON_LABELS = (
    Threat(
        "Anybody who sees updates or model asks which of two replies a record prefers",
        True,
        "labels go through randomised response once, before anything is computed from them",
    ),
    Threat(
        "Anybody who sees updates or model learns prompts, replies, or that a record was there",
        False,
        "label privacy covers labels alone; texts are used without clipping or noise",
    ),
)


def threats(report: Mapping[str, Any]) -> list[Threat]:
    """What could go wrong under the terms of a hospital's report, the coordinator's part first."""
    if report["unit"] == Unit.LABEL:
        return [*_ON_LABELS, *THREATS[3:]]
    relied = _relied_on(report)
    if relied == 1:
        return list(THREATS)
    how = (
        f"updates are opened as sums only, and {relied} hospitals' noise together carries the "
        "bound; it rests on secure aggregation and on that many keeping their noise to themselves"
    )
    return [Threat(_COORDINATOR.threat, True, how), *THREATS[1:]]


_NOT_COVERED = {
    Unit.RECORD: "a patient with several records: see the figures for k records",
    Unit.PAIR: "a patient with several pairs: see the figures for k records",
    Unit.LIST: "a patient with several lists: see the figures for k records",
    Unit.PATIENT: "clinicians and relatives who are named in a patient's records",
    Unit.CLINICIAN: "patients: one clinician's records may hold many of them",
    Unit.AUTHOR: "patients: one author's texts may speak of many of them",
    Unit.SPEAKER: "people who are spoken of and do not speak",
    Unit.TASK: "a patient whose data stand in several tasks: see the figures for k tasks",
    Unit.LABEL: "everything but labels: prompts, replies, and whether a record is there at all",
    Unit.SITE: "no separate figure for one patient: each is protected as a part of the site",
}


def not_covered(unit: Unit) -> list[str]:
    """Who and what the guarantee of this unit leaves out."""
    return [
        _NOT_COVERED[unit],
        "a person whose records lie at several hospitals: the hospitals' figures then add up",
        "the number of units a hospital declares, and that it takes part",
    ]


def nist_points(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """What NIST SP 800-226 asks for, answered from a hospital's report."""
    epsilon = report["epsilon_life"]
    figure = (
        "no bound" if epsilon is None else f"epsilon {epsilon:.3f} at delta {report['delta']:g}"
    )
    return [
        {
            "point": "Privacy parameters",
            "answer": f"{figure} over the data set's life; budget {report['epsilon_budget']:g}",
        },
        {
            "point": "Unit of privacy",
            "answer": f"one {report['unit']}; neighbours differ by {report['adjacency']} of one",
        },
        {
            "point": "Algorithm",
            "answer": f"{report['mechanism']}; accountant {report['accountant']}",
        },
        {"point": "Trust model", "answer": _trust(report)},
        {
            "point": "Floating point",
            "answer": "sums in float64, noise from ChaCha20, results rounded to a lattice",
        },
        {
            "point": "Side channels",
            "answer": "refusals and stops depend on public values only; how long a round takes is "
            "not hidden from the coordinator",
        },
        {
            "point": "Access to data",
            "answer": "only the custodian reads records; the relay beside it sees signed bytes. "
            "Where both share one process, as on a single machine, nothing isolates them",
        },
        {
            "point": "Data collection",
            "answer": "outside this system: the guarantee starts where records are read",
        },
        {
            "point": "Utility and bias",
            "answer": "noise hides rare groups first; compare the scores of groups before use",
        },
    ]


def plain_summary(report: Mapping[str, Any], risk: Mapping[str, Any]) -> str:
    """Two sentences for somebody who does not know what epsilon is."""
    if report["epsilon_life"] is None:
        return (
            "This data set is declared public or generated and was used without protection. "
            "Nothing in this report limits what can be learnt about a single entry."
        )
    at_one = next(
        row for row in risk["most_true_positives"] if abs(row["false_positives"] - 0.01) < 1e-9
    )
    rate = at_one["true_positives"]
    if report["unit"] == Unit.LABEL:
        return (
            "Only labels are protected, not the texts they belong to. Somebody sees everything "
            "this hospital ever sent, wants to tell which of two replies a record prefers, and "
            "accepts to be wrong about 1 of 100 that prefer the other. At most "
            f"{100 * rate:.1f} of 100 can be found so. Guessing would find 1 of 100."
        )
    relied = _relied_on(report)
    seen = "this hospital ever sent"
    if relied > 1:
        seen = f"that can be opened of what this hospital sent while {relied} hospitals are honest"
    return (
        f"Somebody sees everything {seen}, wants to tell whether one "
        f"{report['unit']} was in its data, and accepts to be wrong about 1 of 100 that were not. "
        f"At most {100 * rate:.1f} of 100 that were can be found so. Guessing would find 1 of 100."
    )


def _relied_on(report: Mapping[str, Any]) -> int:
    """How many hospitals' noise the charge counts on; 1 is the hospital itself."""
    charged = [row["relies_on"] for row in report.get("guarantees", ()) if row["charged"]]
    return max(charged, default=1)


def _trust(report: Mapping[str, Any]) -> str:
    """Who is trusted with what."""
    relied = _relied_on(report)
    if relied == 1:
        return "local to the hospital: nobody outside it is trusted with un-noised values"
    return (
        f"distributed: each hospital adds a share of the noise, and the charge counts on {relied} "
        "of them, this one included, to add theirs and keep it to themselves; what holds with "
        "fewer is listed under guarantees"
    )
