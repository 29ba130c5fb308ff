"""A run killed at any point goes on from its folder, and no charge is lost or made twice."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wardround.privacy.chain import read_chain
from wardround.privacy.journal import LEDGER_FILE
from wardround.server.book import read_book
from wardround.strategies.checkpoint import load_checkpoint

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


# Points at which files are half-written, counted over ledgers, replies, book and checkpoints.
BARE_POINTS = [
    ("before the scores are kept", 1),
    ("after the charge", 3),
    ("while the report is written", 2),
    ("while the report is renamed", 1),
    ("before any file is durable", 9),
    ("before any file is durable", 20),
    ("before any file has its name", 7),
    ("before the adapter", 1),
]


def results(run: Path) -> dict[str, Any]:
    """What a run came to: the adapter's bytes, the model's bits, the scores of every round."""
    final = load_checkpoint(run / "checkpoint")
    return {
        "adapter": (run / "adapter" / "adapter_model.safetensors").read_bytes(),
        "round": final.round,
        "model": {name: array.numpy().tobytes() for name, array in final.arrays.items()},
        "answered": final.state["answered"],
        "scores": (run / "metrics.jsonl").read_text(encoding="utf-8"),
        "rounds": [(r.round, r.metrics, r.bytes_down) for r in read_book(run / "rounds")],
    }


@pytest.mark.fault
@pytest.mark.slow
def test_a_killed_run_comes_to_the_same_bytes_without_noise(
    wardround: Command, small_study: Path, tmp_path: Path
) -> None:
    """In mode none everything follows from the seed: no kill may leave a trace in the results."""
    text = small_study.read_text(encoding="utf-8")
    bare = re.sub(r"noise_multiplier = 1.0[^\n]*", 'mode = "none"', text)
    bare = bare.replace('name = "fedavg"', 'name = "fedavg"\nencoding = "int8"')
    bare = bare.replace("[hospitals]", "evaluate_every = 1\n\n[hospitals]")
    small_study.write_text(bare, encoding="utf-8")
    whole = wardround("run", small_study, "--json", "--runs", tmp_path / "whole").document()
    expected = results(Path(whole["run_dir"]))
    jobs = [
        [point, count, ["run", str(small_study), "--json", "--runs", str(tmp_path / str(i))]]
        for i, (point, count) in enumerate(BARE_POINTS)
    ]
    worker = subprocess.run(
        [sys.executable, str(WORKER)], input=json.dumps(jobs), capture_output=True, text=True
    )
    assert worker.returncode == 0, worker.stderr
    assert json.loads(worker.stdout) == [signal.SIGKILL] * len(jobs), worker.stderr
    for i, at in enumerate(BARE_POINTS):
        (run,) = (p for p in (tmp_path / str(i)).iterdir() if not p.name.startswith("."))
        ended = wardround("run", small_study, "--resume", run, "--json")
        assert ended.code == 0, (at, ended.err)
        found = results(run)
        assert [key for key in expected if found[key] != expected[key]] == [], at


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
