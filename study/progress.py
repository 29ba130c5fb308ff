"""What a person sees while a study runs: one line that moves, and who sent nothing."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from wardround.server.book import HospitalAnswer, RoundRecord
from wardround.server.coordinator import Observer


class LiveProgress(Observer):
    """Round, hospital, step, epsilon spent and time left."""

    def __init__(self, console: Console, title: str) -> None:
        self._title = title
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[where]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._round = 0
        self._rounds = 0
        self._hospitals = 1
        self._answered = 0
        self._epsilon = "ε –"

    def on_start(self, first_round: int, rounds: int, hospitals: Iterable[str]) -> None:
        """Show an empty bar."""
        self._hospitals = max(1, len(list(hospitals)))
        self._round, self._rounds = first_round, rounds
        done = (first_round - 1) * self._hospitals
        self._task = self._progress.add_task(
            self._title, total=rounds * self._hospitals, completed=done, where="starting"
        )
        self._progress.start()

    def on_step(self, hospital: str, step: int, steps: int) -> None:
        """One private step was taken at one hospital."""
        if self._task is None:
            return
        done = (self._round - 1) * self._hospitals + self._answered + step / steps
        where = f"round {self._round}/{self._rounds}  {hospital}  step {step}/{steps}"
        self._progress.update(self._task, completed=done, where=f"{where}  {self._epsilon}")

    def on_answer(self, round_number: int, answer: HospitalAnswer) -> None:
        """One hospital answered."""
        self._round = round_number
        self._answered += 1
        if answer.report is None:
            self._progress.console.print(
                f"round {round_number}: {answer.hospital} sent nothing: {answer.reason}",
                highlight=False,
            )
        else:
            spent = answer.report["epsilon_study"]
            self._epsilon = "NOT PRIVATE" if spent is None else f"ε {spent:.2f}"

    def on_round(self, record: RoundRecord) -> None:
        """A round ended."""
        self._round, self._answered = record.round + 1, 0
        if record.round == record.rounds:
            self.close()

    def close(self) -> None:
        """Take the bar away."""
        if self._task is not None:
            self._progress.stop()
            self._task = None
