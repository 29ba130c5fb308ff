"""``wardround ledger``: shows what was charged, and exits 3 when something is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from wardround.privacy.ledger_view import check_export

Command = Callable[..., Any]


def test_show_verify_export(wardround: Command, small_study: Path, tmp_path: Path) -> None:
    run = wardround("run", small_study, "--json", "--runs", tmp_path).document()
    ledger = Path(run["run_dir"]) / "hospitals" / "hospital-1" / "ledger"
    shown = wardround("ledger", "show", ledger, "--json").document()
    (account,) = shown["accounts"]
    assert account["rounds"] == account["answered"] == 2
    assert account["epsilon"] == run["hospitals"][0]["epsilon"]
    verified = wardround("ledger", "verify", ledger, "--json").document()
    assert verified["verified"]
    exported = wardround("ledger", "export", ledger).document()
    assert check_export(exported, verified["public_key"]).entries == shown["entries"]
    assert wardround("ledger", "verify", ledger, "--key", "0" * 64).code == 3
    journal = ledger / "ledger.jsonl"
    journal.write_text(journal.read_text(encoding="utf-8").replace('"count":2', '"count":1', 1))
    damaged = wardround("ledger", "verify", ledger)
    assert damaged.code == 3
    assert "ledger.jsonl" in damaged.err
    assert wardround("ledger", "show", tmp_path / "nowhere").code == 2
