"""A hospital's ledger as a person reads it: what each data set was charged, and what that means."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from wardround.privacy.accountant import accountant_name, epsilon
from wardround.privacy.ledger_view import check_ledger

DELTA = 1e-5


def ledger_document(folder: Path, delta: float = DELTA) -> dict[str, Any]:
    """The checked ledger in ``folder`` with the epsilon of every account, as one JSON document."""
    summary = check_ledger(folder)
    document = summary.to_json()
    for account, shown in zip(summary.accounts, document["accounts"], strict=True):
        spent = epsilon(account.event, delta)
        shown["epsilon"] = spent if math.isfinite(spent) else None
        shown["delta"] = delta
    return document | {"accountant": accountant_name()}


def show_ledger(console: Console, document: Mapping[str, Any]) -> None:
    """The accounts as a table."""
    table = Table("data set", "unit", "studies", "rounds charged", "answered", "ε", "δ")
    for account in document["accounts"]:
        spent = account["epsilon"]
        table.add_row(
            account["dataset"],
            account["unit"],
            ", ".join(account["studies"]),
            str(account["rounds"]),
            str(account["answered"]),
            "NOT PRIVATE" if spent is None else f"{spent:.4f}",
            f"{account['delta']:g}",
        )
    console.print(table)
    for note in document["notes"]:
        console.print(note, highlight=False)
    console.print(f"{document['entries']} entries, {document['accountant']}", highlight=False)
