"""A run as its folder tells it: verified round records, scores, and what does not verify.

Reads only, and only what is public. Each record is verified against the coordinator's key and each
hospital's report inside against the hospital's, once a file; a fault is a sentence that names the
file inside the run, never a path of this machine. Knows nothing of HTML.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wardround.privacy.errors import BadMessage, WardroundError
from wardround.privacy.report import check_reports
from wardround.server.book import (
    HospitalAnswer,
    RoundRecord,
    failure_files,
    parse_record,
    read_history,
    record_files,
)

Metrics = Mapping[str, float]
_RECENT = 5  # rounds that say how long the next ones will take


@dataclass(frozen=True)
class RunInfo:
    """What was fixed when a run began.

    Attributes:
        folder: The run's folder.
        study: Name of the study.
        run: Identifier of the run.
        task: Registered task name.
        strategy: Registered strategy name.
        base: Name of the base model.
        rounds: How many rounds the study takes.
        private: Whether every update is clipped and noised.
        members: Public key of every hospital, by name.
        coordinator: Public key that signs the records; empty where the run does not say.
    """

    folder: Path
    study: str
    run: str
    task: str
    strategy: str
    base: str
    rounds: int
    private: bool
    members: Mapping[str, str]
    coordinator: str = ""


@dataclass(frozen=True)
class Standing:
    """Where one hospital stands.

    Attributes:
        hospital: Its name.
        answered: Rounds it sent an update in.
        refused: Rounds it was asked in and sent none.
        bytes_up: Everything it sent.
        last_round: Last round it answered; 0 for none.
        report: Its newest privacy report, or None.
    """

    hospital: str
    answered: int
    refused: int
    bytes_up: int
    last_round: int
    report: Mapping[str, Any] | None

    def figure(self, name: str) -> float | None:
        """A number of its report; None without a report, or where it has no such number."""
        value = (self.report or {}).get(name)
        return float(value) if isinstance(value, int | float) else None


@dataclass(frozen=True)
class RunState:
    """A run at one moment.

    Attributes:
        info: What was fixed when it began.
        records: The rounds that have ended well and verify, in order.
        failures: The failed tries at rounds that verify, in order, by name of their file.
        ended_at: When each round that ended well was written, Unix seconds, by round.
        scores: Scores on public probes by round; round 0 is the untouched base.
        problems: What does not verify.
        has_report: Whether the report page is there.
    """

    info: RunInfo
    records: tuple[RoundRecord, ...]
    ended_at: Mapping[int, float]
    scores: Mapping[int, Metrics]
    problems: tuple[str, ...]
    has_report: bool
    failures: Mapping[str, RoundRecord] = field(default_factory=dict)

    @property
    def reached(self) -> int:
        """Rounds that have ended."""
        return self.records[-1].round if self.records else 0

    @property
    def finished(self) -> bool:
        """Whether the last round has ended, or the study was stopped before it."""
        return self.reached >= self.info.rounds or bool(self.stopped)

    @property
    def stopped(self) -> str:
        """Why the study ended before its last round; empty otherwise."""
        return self.records[-1].stopped if self.records else ""

    @property
    def failure(self) -> RoundRecord | None:
        """The last failed try at the round that comes next; None when none failed."""
        tries = [failed for failed in self.failures.values() if failed.round > self.reached]
        return tries[-1] if tries else None

    @property
    def seconds_left(self) -> float | None:
        """What the rounds to come will take, if they are like the last ones."""
        recent = self.records[-_RECENT:]
        if not recent or self.finished or self.failure:
            return None
        mean_s = sum(record.seconds for record in recent) / len(recent)
        return mean_s * (self.info.rounds - self.reached)

    @property
    def refusals(self) -> list[tuple[int, HospitalAnswer]]:
        """Every answer without an update, those of failed rounds too, newest first."""
        tries = sorted(
            (*self.records, *self.failures.values()), key=lambda r: (r.round, not r.failed)
        )
        return [
            (record.round, answer)
            for record in reversed(tries)
            for answer in record.answers
            if answer.report is None
        ]

    def standings(self) -> list[Standing]:
        """Where each hospital stands, by name."""
        named = {answer.hospital for record in self.records for answer in record.answers}
        return [self._standing(name) for name in sorted(named | set(self.info.members))]

    def _standing(self, name: str) -> Standing:
        answers = [(r.round, a) for r in self.records for a in r.answers if a.hospital == name]
        usable = [(number, answer) for number, answer in answers if answer.report is not None]
        return Standing(
            hospital=name,
            answered=len(usable),
            refused=len(answers) - len(usable),
            bytes_up=sum(answer.bytes_up for _, answer in answers),
            last_round=usable[-1][0] if usable else 0,
            report=usable[-1][1].report if usable else None,
        )


class RunReader:
    """Reads one run again and again; what was verified once is not verified twice."""

    def __init__(self, info: RunInfo) -> None:
        self.info = info
        self._known: dict[str, tuple[tuple[int, int], RoundRecord | str]] = {}
        self._faults: dict[str, list[str]] = {}
        self._last: dict[str, Mapping[str, Any]] = {}

    def stamp(self) -> str:
        """Changes whenever ``read`` would say something else."""
        folder = self.info.folder
        others = (folder / "metrics.jsonl", folder / "report.html")
        return "-".join(_stamp_text(path) for path in (*self._newest(), *others))

    def read(self) -> RunState:
        """The run now."""
        rounds = self.info.folder / "rounds"
        files = [*record_files(rounds), *failure_files(rounds)]
        stamps = {path.name: stamp for path in files if (stamp := _stamp(path)) is not None}
        if any(stamps.get(name) != known[0] for name, known in self._known.items()):
            self._known, self._faults, self._last = {}, {}, {}  # a round was done again
        for path in files:
            if path.name in stamps and path.name not in self._known:
                self._known[path.name] = stamps[path.name], self._verify(path)
        found = {name: known for name, (_, known) in self._known.items()}
        tries = {n: known for n, known in found.items() if isinstance(known, RoundRecord)}
        records = {name: record for name, record in tries.items() if not record.failed}
        problems = [known for known in found.values() if isinstance(known, str)]
        problems += [fault for faults in self._faults.values() for fault in faults]
        scores, unreadable = self._scores()
        return RunState(
            info=self.info,
            records=tuple(sorted(records.values(), key=lambda record: record.round)),
            failures={name: tries[name] for name in sorted(tries) if tries[name].failed},
            ended_at={r.round: self._known[name][0][0] / 1e9 for name, r in records.items()},
            scores=scores,
            problems=(*problems, *unreadable),
            has_report=(self.info.folder / "report.html").is_file(),
        )

    def raw(self, name: str) -> bytes | None:
        """A round's signed file, by its name, as it lies on disk; None where there is none."""
        path = self.info.folder / "rounds" / name
        return path.read_bytes() if path.is_file() else None

    def report_page(self) -> bytes | None:
        """The report page; None until it is written."""
        path = self.info.folder / "report.html"
        return path.read_bytes() if path.is_file() else None

    def _newest(self) -> Sequence[Path]:
        """The last round's record and the last failure's: a new one has another name and time."""
        rounds = self.info.folder / "rounds"
        return [*record_files(rounds)[-1:], *failure_files(rounds)[-1:]]

    def _verify(self, path: Path) -> RoundRecord | str:
        """The record in a file, or what is wrong with it."""
        name = f"rounds/{path.name}"
        try:
            record = parse_record(path.read_bytes(), name, self.info.coordinator or None)
            named = f"failed-{record.round:04d}-" if record.failed else record.file_name
            if record.run != self.info.run or not path.name.startswith(named):
                raise BadMessage(f"{name}: not the record of this run's round of that number")
        except WardroundError as error:
            return str(error)
        except OSError:
            return f"{name}: cannot be read"
        if not record.failed:  # what was sent for a failed round counts for nothing
            self._faults[path.name] = [f"{name}: {fault}" for fault in self._report_faults(record)]
        return record

    def _report_faults(self, record: RoundRecord) -> Iterator[str]:
        """What is wrong with the hospitals' own reports in a record that verifies."""
        for answer in record.answers:
            if answer.report is None:
                continue
            before = self._last.get(answer.hospital)
            chain = [answer.report] if before is None else [before, answer.report]
            yield from check_reports(chain, self.info.members, recompute=False)
            self._last[answer.hospital] = answer.report

    def _scores(self) -> tuple[Mapping[int, Metrics], list[str]]:
        """Scores by round, and a problem where they cannot be read."""
        try:
            return read_history(self.info.folder / "metrics.jsonl"), []
        except (BadMessage, OSError):
            return {}, ["metrics.jsonl: cannot be read"]


def _stamp(path: Path) -> tuple[int, int] | None:
    """When a file was written and how long it is; None when there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _stamp_text(path: Path) -> str:
    stamp = _stamp(path)
    return "0" if stamp is None else f"{stamp[0]:x}.{stamp[1]:x}"
