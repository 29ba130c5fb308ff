"""Many hospitals against one coordinator: memory of its processes, and how long rounds take.

The coordinator is whole: SuperLink, executor, ServerApp and proxy, as ``coordinator up`` has them.
The hospitals are ``fleet``, in one process beside it, on the same machine. Memory is the processes'
proportional set size, so what they share counts once.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wardround.privacy.errors import BadInput
from wardround.privacy.signing import SigningKey
from wardround.privacy.tables import read_toml
from wardround.server.book import RoundRecord, read_book
from wardround.study.bench.deployment import write_study
from wardround.study.bench.fleet import Fleet, Node
from wardround.study.deployment.fleet_proxy import find_nginx
from wardround.study.deployment.loopback import HOST
from wardround.study.deployment.process_tree import ENDED, PROC, with_descendants
from wardround.study.deployment.processes import PYTHON, environment
from wardround.study.deployment.rehearsal import Ports, Rehearsal
from wardround.study.provisioning.authority import found
from wardround.study.provisioning.hospital import HospitalFolder, install_kit
from wardround.study.provisioning.roster import fingerprint_of

MOST_RELAYS = 250  # each connects from an address of its own in 127.0.1.0/24
UNITS = 320
_SAMPLE_S = 1.0
_TIMEOUT_S = 540.0


def load_benchmark(
    relays: int, rounds: int, update: str, first_port: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Memory of the coordinator's processes and the time of a round with so many hospitals.

    Raises:
        BadInput: Relays or rounds are out of bounds.
        WardroundError: The study did not come to its end.
    """
    if not 1 <= relays <= MOST_RELAYS:
        raise BadInput(f"--relays is {relays}; it must be in 1..{MOST_RELAYS}")
    if rounds < 2:
        raise BadInput(f"--rounds is {rounds}; it must be at least 2")
    with tempfile.TemporaryDirectory(prefix="wardround-bench-") as scratch:
        rehearsal = Rehearsal(Path(scratch), Ports(first_port))
        study = write_study(rehearsal.root, rounds, update, relays)
        say(f"keys and certificates for {relays} hospitals")
        fleet = _provision(rehearsal, [f"hospital-{n + 1}" for n in range(relays)], study)
        memory = Memory()
        try:
            say("the coordinator")
            rehearsal.start_coordinator()
            last = "fleet-proxy" if find_nginx() else "superexec"
            rehearsal.wait_until(
                lambda: f"ready service={last}" in rehearsal.said("coordinator"), "the coordinator"
            )
            idle = memory.sample(rehearsal.running["coordinator"].pid)
            say("the hospitals, then the study")
            with (
                _running(rehearsal, fleet),
                memory.watching(rehearsal.running["coordinator"].pid),
            ):
                run = rehearsal.run_study(study, _TIMEOUT_S)
        finally:
            rehearsal.stop()
        records = read_book(run / "rounds")
    return _document(records, memory, idle) | {
        "settings": {
            "relays": relays,
            "rounds": rounds,
            "update": update,
            "proxy": find_nginx() is not None,
            "load_average": [round(load, 2) for load in os.getloadavg()],
        }
    }


class Memory:
    """Proportional set sizes of a process and all that it started, by name of the program."""

    def __init__(self) -> None:
        self.peak: Mapping[str, int] = {}

    @property
    def peak_bytes(self) -> int:
        """The most they held together at one moment."""
        return sum(self.peak.values())

    def sample(self, root: int) -> Mapping[str, int]:
        """Bytes by program now."""
        found: dict[str, int] = defaultdict(int)
        for process in with_descendants(root):
            try:
                lines = (PROC / f"{process}" / "smaps_rollup").read_text().splitlines()
            except ENDED:
                continue
            kilobytes = next((line.split()[1] for line in lines if line.startswith("Pss:")), "0")
            found[_program(process)] += int(kilobytes) << 10
        return dict(found)

    @contextmanager
    def watching(self, root: int) -> Iterator[None]:
        """Keep the fullest sample of those taken each second while the block lasts."""
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(_SAMPLE_S):
                now = self.sample(root)
                if sum(now.values()) > self.peak_bytes:
                    self.peak = now

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def _program(process: int) -> str:
    """What a process is, by its command line."""
    names = ("flower-superlink", "flower-superexec", "flwr-serverapp", "nginx")
    try:
        line = (PROC / f"{process}" / "cmdline").read_bytes().decode(errors="replace")
    except ENDED:
        return "ended"
    return next((name for name in names if name in line), "supervisor")


def _provision(rehearsal: Rehearsal, names: list[str], study: Path) -> Fleet:
    """Keys, certificates and kits, and what the fleet is told of them."""
    now = datetime.now(UTC).replace(microsecond=0)
    found(rehearsal.write_terms(names), rehearsal.consortium, now, with_keys=True)
    told = fingerprint_of(rehearsal.consortium)
    nodes = []
    for number, name in enumerate(names):
        home = HospitalFolder(rehearsal.hospital(name))
        install_kit(rehearsal.consortium.kit(name), home, now, told)
        nodes.append(Node(name, str(home.node), str(home.signing), f"127.0.1.{number + 1}"))
    return Fleet(
        superlink=f"{HOST}:{rehearsal.ports.proxy}",
        authority=str(rehearsal.consortium.authority.resolve()),
        coordinator=SigningKey.load_or_create(rehearsal.consortium.signing).public,
        units=UNITS,
        delta=float(read_toml(study)["privacy"]["delta"]),
        nodes=nodes,
    )


@contextmanager
def _running(rehearsal: Rehearsal, fleet: Fleet) -> Iterator[None]:
    """The hospitals' process, as long as the block lasts."""
    told = rehearsal.root / "fleet.json"
    told.write_text(fleet.to_json(), encoding="utf-8")
    with (rehearsal.root / "fleet.log").open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own module
            [PYTHON, "-P", "-m", "wardround.study.bench.fleet", str(told)],
            env=environment(rehearsal.root),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _document(
    records: list[RoundRecord], memory: Memory, idle: Mapping[str, int]
) -> dict[str, Any]:
    """Rounds without the first, in which nodes are still coming, and memory at its peak."""
    seconds = [record.seconds for record in records[1:]]
    last = records[-1]
    return {
        "round_s": round(statistics.median(seconds), 3),
        "least_round_s": round(min(seconds), 3),
        "most_round_s": round(max(seconds), 3),
        "first_round_s": round(records[0].seconds, 3),
        "answered": [sum(a.report is not None for a in record.answers) for record in records],
        "bytes_up_a_round": last.bytes_up,
        "bytes_down_a_round": last.bytes_down,
        "idle_bytes": sum(idle.values()),
        "peak_bytes": memory.peak_bytes,
        "peak_bytes_by_program": dict(sorted(memory.peak.items())),
    }
