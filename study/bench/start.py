"""How long a study takes to start, and the same study under Flower's simulation.

Each run is a process of its own, as a user starts it, so imports, base, checks and calibration are
in the time. The study is the embedded one made as small as it goes: few records, one step a round.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import tomli_w

from wardround.privacy.errors import BadInput
from wardround.privacy.tables import read_toml
from wardround.study.local import ENGINES

ROUNDS = 3
# As the command starts: its own imports first, then the process's settings, then everything else.
_WORKER = (
    "import sys, wardround.study.cli as cli; cli.begin_process(); "
    "from wardround.study.bench.start import main; main(*sys.argv[1:])"
)


def start_benchmark(engines: tuple[str, ...] = ENGINES) -> dict[str, Any]:
    """Seconds from process start to first round, first step and end, for each engine.

    Raises:
        BadInput: An engine is unknown, or a run failed; the reason is its last line.
    """
    for engine in engines:
        if engine not in ENGINES:
            raise BadInput(f"--engines names {engine!r}; expected some of {', '.join(ENGINES)}")
    with tempfile.TemporaryDirectory(prefix="wardround-bench-") as scratch:
        study = _toy_study(Path(scratch))
        found = {engine: _run(study, Path(scratch) / engine, engine) for engine in engines}
    document: dict[str, Any] = {"engines": found}
    if found.keys() == set(ENGINES):
        ours, theirs = (found[engine] for engine in ENGINES)
        document["ray_over_in_process"] = {
            "whole_command": round(theirs["whole_s"] / ours["whole_s"], 3),
            "rounds": round(theirs["rounds_s"] / ours["rounds_s"], 3),
        }
    load = [round(load, 2) for load in os.getloadavg()]
    return document | {"settings": {"rounds": ROUNDS, "hospitals": 4, "load_average": load}}


def _toy_study(folder: Path) -> Path:
    """The embedded study with three rounds of one step over few records."""
    with as_file(files("wardround.study") / "embedded" / "medical-editing") as example:
        study, policy = read_toml(example / "study.toml"), read_toml(example / "policy.toml")
    study["study"] |= {"rounds": ROUNDS, "evaluate_every": ROUNDS}
    study["privacy"]["steps_per_round"] = 1
    (folder / "study.toml").write_text(tomli_w.dumps(study), encoding="utf-8")
    (folder / "policy.toml").write_text(tomli_w.dumps(policy), encoding="utf-8")
    return folder / "study.toml"


def _run(study: Path, runs: Path, engine: str) -> dict[str, float]:
    """One study in a process of its own; it prints its own marks."""
    started = time.time()
    done = subprocess.run(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-c", _WORKER, str(study), str(runs), engine],
        check=False,
        capture_output=True,
        text=True,
    )
    ended = time.time()
    if done.returncode:
        raise BadInput(f"engine {engine}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    marks = json.loads(done.stdout.splitlines()[-1])
    found = {name: round(at - started, 3) for name, at in marks.items() if at is not None}
    rounds = found["last_round_s"] - found["coordinator_s"]
    return found | {"rounds_s": round(rounds, 3), "whole_s": round(ended - started, 3)}


def main(study: str, runs: str, engine: str) -> None:
    """Run a study and print when what happened, in seconds since the epoch."""
    from wardround.client.workbench import Workbench
    from wardround.server.book import RoundRecord
    from wardround.server.coordinator import Observer
    from wardround.study.config import Study
    from wardround.study.local import begin
    from wardround.study.runner import Stage, execute

    marks: dict[str, float | None] = {"first_round_s": None, "first_step_s": None}

    class Marks(Observer):
        """Notes the time of what happens."""

        def on_start(self, first_round: int, rounds: int, hospitals: object) -> None:
            """The hospitals have answered; the first round begins."""
            marks["first_round_s"] = time.time()

        def on_round(self, record: RoundRecord) -> None:
            """A round has ended."""
            marks["last_round_s"] = time.time()

    def on_step(hospital: str, step: int, steps: int) -> None:
        if marks["first_step_s"] is None:
            marks["first_step_s"] = time.time()

    if engine == "ray":
        from wardround.study.engines.ray import run_in_ray as chosen
    else:
        from wardround.study.engines.in_process import run_in_process as chosen
    with Workbench() as workbench:
        folder = begin(Study.read(Path(study)), Path(runs), None, workbench)
        marks["coordinator_s"] = time.time()
        execute(folder, Stage(Marks(), on_step, workbench, chosen))
    print(json.dumps(marks))
