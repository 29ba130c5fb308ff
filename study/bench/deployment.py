"""What a round over real processes takes beside its hospitals' work, here and under stock Flower.

Three federations, one after the other, each on loopback with TLS, node authentication and process
isolation: ours with the resident relay, ours with Flower's executor, and Flower alone with its own
polls, torch in its ClientApp and updates of the same size. A round's overhead is the time from the
end of one round to the end of the next, less the longest work of a hospital in it. The first round,
in which models are loaded, and the last, which is scored, are left out.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import tomli_w

from wardround.client.workbench import Workbench
from wardround.privacy.errors import BadInput, WardroundError
from wardround.privacy.tables import read_toml
from wardround.server.book import read_book, record_files
from wardround.study.bench.stock_federation import STOCK_APP, stock_federation
from wardround.study.config import Study
from wardround.study.deployment.fleet_proxy import find_nginx
from wardround.study.deployment.hospital import RELAYS
from wardround.study.deployment.processes import PYTHON, environment
from wardround.study.deployment.rehearsal import Ports, Rehearsal
from wardround.study.local import begin
from wardround.study.run_folder import RunFolder

HOSPITALS = 3
COMMANDS = 3 + 2 * HOSPITALS  # provision, coordinator up and run; install and up at each hospital
UPDATES = {"demo": {}, "large": {"rank": 64, "alpha": 64, "targets": [
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]}}  # fmt: skip
# NVIDIA FLARE 2.9 in POC mode with three sites, on this kind of machine: from an empty folder with
# its installation, without it (ten rounds included), and the start alone; commands as in its guide.
FLARE_POC = {"empty_folder_s": 97, "after_install_s": 56.3, "start_s": 12.6, "commands": 5}
_ANSWERED = re.compile(r"answered call=train seconds=([0-9.]+)")
_TIMEOUT_S = 420.0


@dataclass(frozen=True)
class Timed:
    """One federation's times, in seconds.

    Attributes:
        began: Of the folder that was empty, on the clock.
        provisioned: When keys, certificates and kits were in place.
        up: When every process was ready.
        first_round: When the first round began.
        ends: When each round ended.
        works: The longest work of a hospital, by round.
    """

    began: float
    provisioned: float
    up: float
    first_round: float
    ends: Sequence[float]
    works: Sequence[float]

    def document(self) -> dict[str, Any]:
        """Medians over the rounds that count, and how the start went."""
        periods = [b - a for a, b in zip(self.ends[:-2], self.ends[1:-1], strict=True)]
        works = self.works[1:-1]
        overheads = [period - work for period, work in zip(periods, works, strict=True)]
        return {
            "overhead_s": round(statistics.median(overheads), 3),
            "least_overhead_s": round(min(overheads), 3),
            "most_overhead_s": round(max(overheads), 3),
            "round_s": round(statistics.median(periods), 3),
            "work_s": round(statistics.median(works), 3),
            "rounds_timed": len(periods),
            "provision_s": round(self.provisioned - self.began, 2),
            "up_s": round(self.up - self.provisioned, 2),
            "first_round_begins_s": round(self.first_round - self.began, 2),
            "first_round_ends_s": round(self.ends[0] - self.began, 2),
        }


def deployment_benchmark(
    rounds: int, update: str, first_port: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Overheads of a round of all three, their ratios, and how soon a first round begins.

    Raises:
        BadInput: There is no such update, or rounds are too few to leave two out.
        WardroundError: A federation did not come to its end.
    """
    if rounds < 4:
        raise BadInput(
            f"--rounds is {rounds}; it must be at least 4, the first and last are left out"
        )
    with tempfile.TemporaryDirectory(prefix="wardround-bench-") as scratch:
        root = Path(scratch)
        study = write_study(root, rounds, update, HOSPITALS)
        os.environ["OMP_NUM_THREADS"] = "1"  # every process inherits it; a hospital has one core
        with Workbench() as workbench:
            pattern = begin(Study.read(study), root / "pattern", None, workbench)
        timed, bytes_up = {}, 0
        for number, relay in enumerate(RELAYS):
            say(f"ours, --relay {relay}")
            ports = Ports(first_port + 100 * number)
            rehearsal = Rehearsal(root / relay, ports, relay)
            timed[relay], bytes_up = _ours(rehearsal, study, pattern)
        say("stock Flower")
        rehearsal = Rehearsal(root / "stock", Ports(first_port + 100 * len(RELAYS)))
        timed["stock"] = _stock(rehearsal, pattern, rounds, bytes_up)
    found = {name: one.document() for name, one in timed.items()}
    stock = found["stock"]["overhead_s"]
    return {
        **found,
        "resident_over_stock": round(found["resident"]["overhead_s"] / stock, 3),
        "flower_relay_over_stock": round(found["flower"]["overhead_s"] / stock, 3),
        "commands_from_an_empty_folder": COMMANDS,
        "flare_poc": FLARE_POC,
        "settings": {
            "hospitals": HOSPITALS,
            "rounds": rounds,
            "update_bytes": bytes_up,
            "proxy": find_nginx() is not None,
            "load_average": [round(load, 2) for load in os.getloadavg()],
        },
    }


def write_study(folder: Path, rounds: int, update: str, hospitals: int) -> Path:
    """The embedded study with so many hospitals and short rounds.

    Raises:
        BadInput: There is no such update.
    """
    if update not in UPDATES:
        raise BadInput(f"--update is {update!r}; expected one of {', '.join(UPDATES)}")
    with as_file(files("wardround.study") / "embedded" / "medical-editing") as example:
        study, policy = read_toml(example / "study.toml"), read_toml(example / "policy.toml")
    study["study"] |= {"rounds": rounds, "evaluate_every": rounds}
    study["hospitals"]["count"] = hospitals
    study["adapter"] |= UPDATES[update]
    del study["privacy"]["epsilon"]
    study["privacy"] |= {"noise_multiplier": 2.0, "steps_per_round": 2}
    (folder / "study.toml").write_text(tomli_w.dumps(study), encoding="utf-8")
    (folder / "policy.toml").write_text(tomli_w.dumps(policy), encoding="utf-8")
    return folder / "study.toml"


def _ours(rehearsal: Rehearsal, study: Path, pattern: RunFolder) -> tuple[Timed, int]:
    """Ours from an empty folder, by the commands a person gives; and the bytes of an update."""
    names = pattern.facts.hospitals
    rehearsal.root.mkdir()
    began = time.time()
    _provision(rehearsal, names)
    provisioned = time.time()
    rehearsal.copy_data(pattern)
    last = "fleet-proxy" if find_nginx() else "superexec"
    awaited = [("coordinator", last), *((name, "relay") for name in names)]
    try:
        rehearsal.start_coordinator()
        for index, name in enumerate(names):
            rehearsal.start_hospital(index, name)
        rehearsal.wait_until(
            lambda: all(
                f"ready service={service}" in rehearsal.said(who) for who, service in awaited
            ),
            "the federation",
        )
        up = time.time()
        run = rehearsal.run_study(study, _TIMEOUT_S)
    finally:
        rehearsal.stop()
    records = read_book(run / "rounds")
    ends = [path.stat().st_mtime for path in record_files(run / "rounds")]
    works = [_works(rehearsal, name) for name in names]
    longest = [max(of_round) for of_round in zip(*works, strict=True)]
    first = ends[0] - records[0].seconds
    bytes_up = max(answer.bytes_up for answer in records[-1].answers)
    return Timed(began, provisioned, up, first, ends, longest), bytes_up


def _works(rehearsal: Rehearsal, name: str) -> list[float]:
    """How long the custodian worked for each round, by its own log."""
    path = rehearsal.hospital(name) / "run" / "custodian.log"
    return [float(s) for s in _ANSWERED.findall(path.read_text(encoding="utf-8"))]


def _provision(rehearsal: Rehearsal, names: Sequence[str]) -> None:
    """``provision`` and one ``provision install`` a hospital, as commands."""
    terms, consortium = rehearsal.write_terms(names), rehearsal.consortium
    made = _command(rehearsal, str(terms), "--folder", str(consortium.path), "--with-keys")
    for name in names:
        kit, home = str(consortium.kit(name)), str(rehearsal.hospital(name))
        told = ("--fingerprint", made["fingerprint"])
        _command(rehearsal, "install", kit, "--folder", home, *told)


def _command(rehearsal: Rehearsal, *words: str) -> dict[str, Any]:
    """What ``wardround provision`` says."""
    done = subprocess.run(  # noqa: S603 - our own command
        [PYTHON, "-P", "-m", "wardround.study", "provision", *words, "--json"],
        env=environment(rehearsal.root),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise WardroundError(f"provision failed: {done.stdout}{done.stderr}")
    return dict(json.loads(done.stdout))


def _stock(rehearsal: Rehearsal, pattern: RunFolder, rounds: int, size_bytes: int) -> Timed:
    """Flower alone, with our keys and updates of the same size."""
    rehearsal.root.mkdir()
    began = time.time()
    now = datetime.now(UTC).replace(microsecond=0)
    rehearsal.provision(pattern, now)
    provisioned = time.time()
    notes = rehearsal.root / "notes.json"
    settings: dict[str, str | int] = {
        "rounds": rounds,
        "nodes": HOSPITALS,
        "numbers": size_bytes // 4,
        "notes": str(notes),
    }
    with stock_federation(rehearsal, pattern.facts.hospitals, now) as federation:
        up = time.time()
        federation.run(STOCK_APP, settings, _TIMEOUT_S)
    said: dict[str, Any] = {}
    with suppress(OSError):
        said = json.loads(notes.read_text(encoding="utf-8"))
    if len(said.get("begun", ())) != rounds or len(said["work_s"]) != rounds:
        raise WardroundError("stock Flower did not come to the end of its rounds")
    begun = list(said["begun"])
    return Timed(began, provisioned, up, begun[0], [*begun[1:], said["ended"]], said["work_s"])
