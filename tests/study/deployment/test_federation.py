"""A whole federation of real processes on loopback comes to what one process comes to."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from wardround.study.deployment.rehearsal import Ports, Rehearsal, federation
from wardround.study.local import run_study
from wardround.study.run_folder import RunFolder

PORTS = Ports(24_000)


@pytest.mark.deployment
def test_three_hospitals_behind_tls_learn_what_one_process_learns(
    small_study: Path, tmp_path: Path
) -> None:
    """Certificates, supervisors, custodians, relays; mode none, so every byte must agree."""
    text = small_study.read_text(encoding="utf-8")
    for old, new in (("count = 2", "count = 3"), ("noise_multiplier = 1.0 ", 'mode = "none" ')):
        assert old in text
        text = text.replace(old, new)
    small_study.write_text(text, encoding="utf-8")
    alone = run_study(Console(quiet=True), small_study, tmp_path / "alone")
    rehearsal = Rehearsal(tmp_path / "together", PORTS, seed=0)
    pattern, now = RunFolder.open(alone.folder), datetime.now(UTC).replace(microsecond=0)
    with federation(rehearsal, pattern, now) as running:
        run = running.run_study(small_study, 300)
        said = running.said("hospital-1")
    assert "isolation is OFF" in said
    adapter = Path("adapter") / "adapter_model.safetensors"
    assert (run / adapter).read_bytes() == (alone.folder / adapter).read_bytes()
    assert len(list((run / "rounds").glob("*.json"))) == 2
