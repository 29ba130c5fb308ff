"""What may be wrong with a hospital's answer: its report, its form, its values, its ledger head.

An answer that reaches this module is signed by the hospital it names; whether it says what was
asked is another matter. Nothing here raises: a fault is a sentence for the report book. Knows
nothing of rounds or of how updates are combined.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from wardround.privacy.chain import LedgerHead
from wardround.privacy.errors import BadMessage, UntrustedPeer
from wardround.privacy.plan import RoundPlan
from wardround.privacy.report import check_report
from wardround.server.book import HospitalAnswer
from wardround.strategies.codec import StoredArrays

log = logging.getLogger("wardround.coordinator")


def report_fault(report: object, plan: RoundPlan, public_key: str) -> str:
    """What is wrong with a hospital's own report on this plan; empty when nothing is.

    Its epsilons are not computed anew here: whoever reads the run can do that at any time.
    """
    if not isinstance(report, dict):
        return "sent no report"
    try:
        check_report(report, public_key, recompute=False)
    except (BadMessage, UntrustedPeer) as error:
        return str(error)
    return "" if report["plan_sha256"] == plan.sha256 else "reports on another plan"


def update_fault(arrays: StoredArrays, plan: RoundPlan, expected: Mapping[str, Tensor]) -> str:
    """What is wrong with an update's form or values; empty when nothing is.

    Names, shapes and encoding are known before an array is decoded; then one is at a time.
    """
    if arrays.encoding != plan.encoding:
        return f"is written in {arrays.encoding}; the plan asks for {plan.encoding}"
    if arrays.keys() != expected.keys():
        return f"array {sorted(arrays.keys() ^ expected.keys())[0]!r} is missing or unknown"
    for name, shape in arrays.shapes.items():
        if shape != expected[name].shape:
            return f"array {name!r} has shape {tuple(shape)}"
    try:
        for name, array in arrays.items():
            if not bool(torch.isfinite(array).all()):
                return f"array {name!r} holds a value that is not finite"
    except BadMessage as error:
        return str(error)
    return ""


def ledger_heads(answers: Iterable[HospitalAnswer]) -> dict[str, LedgerHead]:
    """Where each hospital's ledger stood when it answered; signed into its next plan.

    A hospital restored from an old copy then finds a plan that knows more than its ledger.
    """
    heads = {}
    for answer in answers:
        claimed = (answer.report or {}).get("ledger_head")
        if isinstance(claimed, dict):
            try:
                heads[answer.hospital] = LedgerHead(**claimed)
            except (TypeError, ValueError) as error:
                log.warning(
                    "unusable ledger head hospital=%(hospital)s reason=%(reason)s",
                    {"hospital": answer.hospital, "reason": str(error)},
                )
    return heads
