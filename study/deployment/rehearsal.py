"""A whole federation on this machine: real keys, certificates and processes, all on loopback.

For tests and the benchmark. Hospitals get the records and policies that a run of the same study in
one process gave its own, so that both can be compared.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import tomli_w

from wardround.privacy.errors import WardroundError
from wardround.study.deployment.isolation import Users
from wardround.study.deployment.loopback import HOST
from wardround.study.deployment.process_tree import ENDED, PROC, children_of
from wardround.study.deployment.processes import PYTHON, environment
from wardround.study.provisioning.authority import found
from wardround.study.provisioning.hospital import HospitalFolder, install_kit
from wardround.study.provisioning.roster import ConsortiumFolder, fingerprint_of
from wardround.study.run_folder import RunFolder

_STOP_S = 60.0


@dataclass(frozen=True)
class Ports:
    """Ports of a rehearsal: the proxy's, the SuperLink's, and one a hospital from ``node`` on."""

    first: int

    @property
    def proxy(self) -> int:
        """Where hospitals connect."""
        return self.first

    @property
    def superlink(self) -> int:
        """Behind the proxy."""
        return self.first + 1

    def node(self, index: int) -> int:
        """Of one hospital's SuperNode."""
        return self.first + 10 + index


@dataclass
class Rehearsal:
    """The folders of a consortium, and the supervisors that run in it.

    Attributes:
        root: Everything is below.
        ports: Nobody else uses them.
        relay: ``resident`` or ``flower``.
        seed: For rounds of mode none.
        users: Isolate every hospital, as users whose names begin so; needs root.
        around: What a command line begins with, by where it runs: ``coordinator`` or a hospital.
        host: Address that hospitals reach the coordinator at.
        patience_s: After which an unanswered message is sent again.
    """

    root: Path
    ports: Ports
    relay: str = "resident"
    seed: int | None = None
    users: str | None = None
    around: Callable[[str], Sequence[str]] = lambda where: ()
    host: str = HOST
    patience_s: float = 600.0
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def consortium(self) -> ConsortiumFolder:
        """The coordinator's folder."""
        return ConsortiumFolder(self.root / "consortium")

    def hospital(self, name: str) -> Path:
        """A hospital's folder."""
        return self.root / name

    def records(self, name: str) -> Path:
        """A hospital's data."""
        return next(self.hospital(name).glob("records.*"))

    def provision(self, pattern: RunFolder, now: datetime) -> None:
        """Keys, certificates and kits for the hospitals of ``pattern``, with copies of its data."""
        names = pattern.facts.hospitals
        found(self.write_terms(names), self.consortium, now, with_keys=True)
        told = fingerprint_of(self.consortium)
        for name in names:
            install_kit(self.consortium.kit(name), HospitalFolder(self.hospital(name)), now, told)
        self.copy_data(pattern)

    def write_terms(self, names: Sequence[str]) -> Path:
        """The consortium file."""
        terms = self.root / "consortium.toml"
        tables = {
            "consortium": {"name": "rehearsal"},
            "coordinator": {"hosts": [self.host], "port": self.ports.proxy},
            "hospitals": [{"name": name} for name in names],
        }
        terms.write_text(tomli_w.dumps(tables), encoding="utf-8")
        return terms

    def copy_data(self, pattern: RunFolder) -> None:
        """Give every hospital the records and the policy it has in ``pattern``."""
        for name in pattern.facts.hospitals:
            home, theirs = self.hospital(name), pattern.path / "hospitals" / name
            shutil.copyfile(theirs / "policy.toml", home / "policy.toml")
            records = next(theirs.glob("records.*"))
            shutil.copyfile(records, home / records.name)

    def start_coordinator(self) -> None:
        """``wardround coordinator up``."""
        self._start(
            "coordinator",
            "coordinator", "up",
            "--folder", str(self.consortium.path),
            "--superlink-port", str(self.ports.superlink),
            "--listen", self.host,
        )  # fmt: skip

    def start_hospital(self, index: int, name: str, *more: str) -> None:
        """``wardround hospital up``, with more options if any."""
        home = self.hospital(name)
        records = self.records(name)
        given = [] if self.seed is None else ["--seed", str(self.seed)]
        if self.users is not None:
            users = Users(f"{self.users}-{index}")
            users.make()
            users.own(records, "custodian", 0o600)
            given += ["--isolate", "--users", users.prefix]
        self._start(
            name,
            "hospital", "up",
            "--folder", str(home),
            "--records", str(records),
            "--node-port", str(self.ports.node(index)),
            "--relay", self.relay,
            *given,
            *more,
        )  # fmt: skip

    def run_study(self, study: Path, timeout_s: float) -> Path:
        """``wardround coordinator run``; the finished run's folder.

        Raises:
            WardroundError: It did not finish.
        """
        command = [
            *self.around("coordinator"),
            PYTHON, "-P", "-m", "wardround.study", "coordinator", "run", str(study),
            "--folder", str(self.consortium.path),
            "--runs", str(self.root / "runs"),
            "--superlink-port", str(self.ports.superlink),
            "--timeout-s", str(timeout_s),
            "--patience-s", str(self.patience_s),
        ]  # fmt: skip
        done = subprocess.run(  # noqa: S603 - our own command
            command,
            env=environment(self.root),
            capture_output=True,
            text=True,
            timeout=timeout_s + 60,
            check=False,
        )
        if done.returncode:
            raise WardroundError(f"coordinator run failed: {done.stdout}{done.stderr}")
        return next(path for path in (self.root / "runs").iterdir() if path.is_dir())

    def said(self, name: str) -> str:
        """What a supervisor has said so far."""
        return (self.root / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def services(self, name: str) -> dict[str, int]:
        """Process ids of what a supervisor has running, by name of the service."""
        supervisor = self.running[name].pid
        found = {}
        for child in children_of(supervisor):
            try:
                log = os.readlink(PROC / f"{child}" / "fd" / "1")
            except ENDED:
                continue
            found[Path(log).stem] = child
        return found

    def wait_until(
        self,
        holds: Callable[[], bool],
        what: str,
        timeout_s: float = 120.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Return once ``holds``; ``WardroundError`` naming ``what`` when it takes too long."""
        deadline = clock() + timeout_s
        while not holds():
            if clock() > deadline:
                raise WardroundError(f"{what}: not within {timeout_s:g} s")
            sleep(0.1)

    def stop(self) -> None:
        """Stop every supervisor, hospitals first."""
        for name in reversed(self.running):
            self.running[name].send_signal(signal.SIGTERM)
        for process in self.running.values():
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
        self.running.clear()

    def _start(self, name: str, *arguments: str) -> None:
        with (self.root / f"{name}.log").open("ab") as output:
            self.running[name] = subprocess.Popen(  # noqa: S603 - our own command
                [*self.around(name), PYTHON, "-P", "-m", "wardround.study", *arguments],
                env=environment(self.root),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )


@contextmanager
def federation(rehearsal: Rehearsal, pattern: RunFolder, now: datetime) -> Iterator[Rehearsal]:
    """Everything up: coordinator, then one supervisor a hospital; all stopped at the end."""
    rehearsal.root.mkdir(parents=True, exist_ok=True)
    rehearsal.provision(pattern, now)
    try:
        rehearsal.start_coordinator()
        for index, name in enumerate(pattern.facts.hospitals):
            rehearsal.start_hospital(index, name)
        yield rehearsal
    finally:
        rehearsal.stop()
