"""A run killed at any point goes on from its folder, and no charge is lost or made twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wardround.privacy.chain import read_chain
from wardround.privacy.journal import LEDGER_FILE

Command = Callable[..., Any]
WORKER = Path(__file__).parent / "killed_run.py"
# Two hospitals a round: the third call is the first hospital's in round 2.
POINTS = [
    ("before the charge", 3),
    ("after the charge", 3),
    ("in training", 6),
    ("before the answer is stored", 4),
    ("after the answer is stored", 3),
    ("before the report", 2),
    ("before the checkpoint", 1),
    ("after the checkpoint", 1),
]


def charges(run: Path) -> dict[str, list[int]]:
    """Rounds charged in each hospital's ledger, in order, the ledger itself checked."""
    found = {}
    for home in sorted((run / "hospitals").iterdir()):
        chain = read_chain(home / "ledger" / LEDGER_FILE)
        found[home.name] = [
            entry.fields["round"] for entry in chain.entries if entry.fields["kind"] == "reserve"
        ]
    return found


@pytest.mark.fault
@pytest.mark.slow
def test_a_run_killed_anywhere_goes_on(
    wardround: Command, small_study: Path, tmp_path: Path
) -> None:
    jobs = [
        [point, count, ["run", str(small_study), "--json", "--runs", str(tmp_path / str(i))]]
        for i, (point, count) in enumerate(POINTS)
    ]
    worker = subprocess.run(
        [sys.executable, str(WORKER)], input=json.dumps(jobs), capture_output=True, text=True
    )
    assert worker.returncode == 0, worker.stderr
    assert json.loads(worker.stdout) == [signal.SIGKILL] * len(POINTS), worker.stderr
    for i, (point, _) in enumerate(POINTS):
        (run,) = (p for p in (tmp_path / str(i)).iterdir() if not p.name.startswith("."))
        before = charges(run)
        ended = wardround("run", small_study, "--resume", run, "--json")
        assert ended.code == 0, (point, ended.err)
        assert ended.document()["rounds"] == 2, point
        after = charges(run)
        for name, rounds in before.items():
            assert after[name][: len(rounds)] == rounds, point
            assert after[name] == [1, 2], (point, "every round charged, and charged once")
        assert (run / "adapter" / "adapter_model.safetensors").exists(), point


def test_a_run_goes_on_only_as_it_began(
    wardround: Command, small_study: Path, tmp_path: Path
) -> None:
    run = wardround("run", small_study, "--json", "--runs", tmp_path).document()["run_dir"]
    text = small_study.read_text(encoding="utf-8")
    small_study.write_text(text.replace("clip_norm = 1.0", "clip_norm = 2.0"), encoding="utf-8")
    ended = wardround("run", small_study, "--resume", run)
    assert ended.code == 2
    assert "[privacy]: differs" in ended.err


def test_a_finished_run_is_finished(wardround: Command, small_study: Path, tmp_path: Path) -> None:
    first = wardround("run", small_study, "--json", "--runs", tmp_path).document()
    before = charges(Path(first["run_dir"]))
    again = wardround("run", small_study, "--resume", first["run_dir"], "--json").document()
    assert charges(Path(first["run_dir"])) == before
    assert again["metrics"] == first["metrics"]
    assert again["hospitals"] == first["hospitals"]
