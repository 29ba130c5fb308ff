"""A whole federation of real processes on loopback comes to what one process comes to."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from wardround.server.book import read_book
from wardround.study.deployment.rehearsal import Ports, Rehearsal, federation
from wardround.study.local import run_study
from wardround.study.run_folder import RunFolder

PORTS = {"resident": Ports(24_000), "flower": Ports(24_100)}
EVENTS = ("events_study", "events_life", "epsilon_study", "epsilon_life", "steps")


def accounts(run: Path) -> list[dict[str, Any]]:
    """What every hospital's reports say was spent, round by round."""
    answers = [answer for record in read_book(run / "rounds") for answer in record.answers]
    return [{key: (answer.report or {})[key] for key in EVENTS} for answer in answers]


@pytest.mark.deployment
@pytest.mark.parametrize("relay", PORTS)
def test_three_hospitals_behind_tls_learn_what_one_process_learns(
    small_study: Path, tmp_path: Path, relay: str
) -> None:
    """Certificates, supervisors, custodians, relays; mode none, so every byte must agree."""
    text = small_study.read_text(encoding="utf-8")
    for old, new in (("count = 2", "count = 3"), ("noise_multiplier = 1.0 ", 'mode = "none" ')):
        assert old in text
        text = text.replace(old, new)
    small_study.write_text(text, encoding="utf-8")
    alone = run_study(Console(quiet=True), small_study, tmp_path / "alone")
    rehearsal = Rehearsal(tmp_path / "together", PORTS[relay], relay, seed=0)
    pattern, now = RunFolder.open(alone.folder), datetime.now(UTC).replace(microsecond=0)
    with federation(rehearsal, pattern, now) as running:
        run = running.run_study(small_study, 300)
        said = running.said("hospital-1")
    assert "isolation is OFF" in said
    assert "ready service=relay" in said
    adapter = Path("adapter") / "adapter_model.safetensors"
    assert (run / adapter).read_bytes() == (alone.folder / adapter).read_bytes()
    assert accounts(run) == accounts(alone.folder)
    assert len(accounts(run)) == 3 * 2
    assert ("bundle is unpacked" in said) == (relay == "flower")
