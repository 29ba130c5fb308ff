"""A whole federation in the background while a test does things to it, and what must hold after.

The study runs in mode none, first in one process: an update that was lost, or counted twice, shows
in the adapter's bytes, and the ledgers show every charge.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from wardround.privacy.chain import read_chain
from wardround.privacy.journal import LEDGER_FILE
from wardround.privacy.ledger_view import check_ledger
from wardround.server.book import RoundRecord, read_book
from wardround.study.deployment.process_tree import children_of
from wardround.study.deployment.rehearsal import Rehearsal, federation
from wardround.study.local import run_study
from wardround.study.run_folder import RunFolder

ADAPTER = Path("adapter") / "adapter_model.safetensors"


def rewrite(study: Path, rounds: int, changes: dict[str, str]) -> None:
    """Let a study have so many rounds of one step, mode none, and be looked at in the last."""
    text = study.read_text(encoding="utf-8")
    shorter = {
        "rounds = 2": f"rounds = {rounds}\nevaluate_every = {rounds}",
        "steps_per_round = 2": "steps_per_round = 1",
        "noise_multiplier = 1.0 ": 'mode = "none" ',
    }
    for old, new in (shorter | changes).items():
        assert old in text, f"the small study no longer says {old!r}"
        text = text.replace(old, new, 1)
    study.write_text(text, encoding="utf-8")


@dataclass
class Together:
    """A study that runs.

    Attributes:
        federation: Its processes.
        pattern: The same study, finished, in one process.
        ended: Its run folder, later.
    """

    federation: Rehearsal
    pattern: RunFolder
    ended: Future[Path]

    @property
    def names(self) -> tuple[str, ...]:
        return self.pattern.facts.hospitals

    @property
    def going(self) -> bool:
        return not self.ended.done()

    def rounds(self) -> int:
        """Rounds that are on disk."""
        return len(list((self.federation.root / "runs").glob("[!.]*/rounds/[0-9]*.json")))

    def find(self, where: str, kind: str) -> int | None:
        """A process of a supervisor; ``serverapp`` and ``clientapp`` are what executors started."""
        parent = {"serverapp": "superexec", "clientapp": "relay"}.get(kind)
        process = self.federation.services(where).get(parent or kind)
        if parent is None or process is None:
            return process
        return next(iter(children_of(process)), None)

    def strike(self, where: str, kind: str, number: int = signal.SIGKILL) -> bool:
        """Signal one process; False when it is not there."""
        process = self.find(where, kind)
        if process is None:
            return False
        os.kill(process, number)
        return True

    def wait_for(
        self,
        holds: Callable[[], bool],
        what: str,
        timeout_s: float = 600.0,
        every_s: float = 0.05,
    ) -> None:
        """Until something holds or the study has ended."""
        ends = time.monotonic() + timeout_s
        while self.going and not holds():
            assert time.monotonic() < ends, f"{what}: not within {timeout_s:g} s"
            time.sleep(every_s)

    def wait_for_round(self, number: int) -> None:
        """Until so many rounds have ended."""
        self.wait_for(lambda: self.rounds() >= number, f"round {number}")
        assert self.rounds() >= number

    def pause(self, seconds: float) -> None:
        """Go on after so long, or when the study has ended."""
        ends = time.monotonic() + seconds
        while self.going and time.monotonic() < ends:
            time.sleep(0.02)

    def said(self, where: str, service: str) -> str:
        """The log of one service, or of the ServerApp, so far."""
        if service == "serverapp":
            runs = (self.federation.root / "runs").glob("[!.]*/serverapp.log")
            return "".join(path.read_text(encoding="utf-8") for path in runs)
        home = self.federation.root / ("consortium" if where == "coordinator" else where)
        path = home / "run" / f"{service}.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def require_all_is_well(self) -> list[RoundRecord]:
        """Every round answered by everybody and charged once; the adapter that of one process."""
        run = self.ended.result()
        rounds = list(range(1, self.pattern.study.study.rounds + 1))
        records = read_book(run / "rounds")
        assert [record.round for record in records] == rounds
        for record in records:
            reasons = {a.hospital: a.reason for a in record.answers if a.report is None}
            assert reasons == {}, f"round {record.round}"
            assert [a.hospital for a in record.answers] == list(self.names)
        members = RunFolder.open(run).facts.members
        for name in self.names:
            assert charged(self.federation.hospital(name), members[name]) == rounds, name
        assert (run / ADAPTER).read_bytes() == (self.pattern.path / ADAPTER).read_bytes()
        return records


def charged(home: Path, public_key: str) -> list[int]:
    """Rounds charged in a hospital's ledger, in order; the ledger itself is checked."""
    check_ledger(home / "ledger", public_key)
    entries = read_chain(home / "ledger" / LEDGER_FILE).entries
    return [entry.fields["round"] for entry in entries if entry.fields["kind"] == "reserve"]


@contextmanager
def together(
    study: Path, alone: Path, make: Callable[[RunFolder], Rehearsal]
) -> Iterator[Together]:
    """The study in one process under ``alone``, then in a federation, beside what the block does.

    Leaving the block waits for the study's end.
    """
    finished = run_study(Console(quiet=True), study, alone)
    pattern, now = RunFolder.open(finished.folder), datetime.now(UTC).replace(microsecond=0)
    with federation(make(pattern), pattern, now) as running, ThreadPoolExecutor(1) as pool:
        ended = pool.submit(running.run_study, study, 5400.0)
        both = Together(running, pattern, ended)
        both.wait_for_round(1)
        yield both
        ended.result()
