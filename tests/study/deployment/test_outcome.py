"""What ``coordinator run`` makes of what Flower says of a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flwr.supercore.error import catalog

from wardround.privacy.errors import WardroundError
from wardround.privacy.signing import SigningKey
from wardround.server.book import HospitalAnswer, ReportBook, RoundRecord
from wardround.server.gathering import SILENT
from wardround.study.bench.stock_federation import wait_for_outcome
from wardround.study.deployment import coordinator
from wardround.study.deployment.coordinator import (
    UNKNOWN,
    CoordinatorPlace,
    run_status,
)
from wardround.study.deployment.runs import why_refused
from wardround.study.provisioning.roster import ConsortiumFolder


def status(word: str) -> dict[str, Any]:
    return {"success": True, "runs": [{"status": word}]}


def wait(monkeypatch: pytest.MonkeyPatch, *documents: dict[str, Any]) -> list[float]:
    """Sleeps between looks that find these documents, one after the other."""
    told: Iterator[dict[str, Any]] = iter(documents)
    monkeypatch.setattr(coordinator, "flower_document", lambda home, command: next(told))
    place, slept = CoordinatorPlace(ConsortiumFolder(Path("none")), 8600), []
    wait_for_outcome(place, "7", 100.0, clock=lambda: sum(slept), sleep=slept.append)
    return slept


def test_a_superlink_that_cannot_be_reached_or_has_forgotten_a_run_says_which(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``follow`` asks the one again and starts the run again at the other."""
    gone = {"success": False, "error-message": "Connection to the SuperLink is unavailable."}
    forgotten = {"success": False, "error-message": "Run ID not found."}
    place = CoordinatorPlace(ConsortiumFolder(Path("none")), 8600)
    monkeypatch.setattr(coordinator, "flower_document", lambda home, command: gone)
    with pytest.raises(WardroundError, match="did not answer: Connection to the SuperLink"):
        run_status(place, "7")
    monkeypatch.setattr(coordinator, "flower_document", lambda home, command: forgotten)
    assert run_status(place, "7") == UNKNOWN


def test_an_app_whose_run_was_forgotten_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """In memory alone: a SuperLink that was started again would be asked for ever."""
    forgotten = {"success": False, "error-message": "Run ID not found."}
    with pytest.raises(WardroundError, match="run 7: the SuperLink has forgotten it"):
        wait(monkeypatch, status("running"), forgotten)


def test_those_are_flowers_words() -> None:
    assert coordinator._FORGOTTEN in Path(str(catalog.__file__)).read_text(encoding="utf-8")


def test_a_failed_run_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WardroundError, match=r"finished:failed; superexec\.log says why"):
        wait(monkeypatch, status("starting"), status("finished:failed"))


def test_a_run_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WardroundError, match="still running after 100 s"):
        wait(monkeypatch, *[status("running")] * 100)


def test_why_hospitals_refused_is_said_once(tmp_path: Path) -> None:
    """A run that goes on and ends for another reason does not repeat the old one."""
    assert why_refused(tmp_path, 0) == ""
    why = "round 2: no usable update (north: BudgetExceeded: no more)"
    said = (HospitalAnswer("north", reason="BudgetExceeded: no more"),)
    book = ReportBook(tmp_path / "rounds", SigningKey.generate())
    book.write(RoundRecord("study", "run", 2, 5, said, failed=why))
    assert why_refused(tmp_path, 0) == why
    assert why_refused(tmp_path, 1) == ""


def test_a_round_that_nobody_answered_was_not_refused(tmp_path: Path) -> None:
    """Everybody may be back in a minute."""
    silent = (HospitalAnswer("north", reason=SILENT), HospitalAnswer("south", reason=SILENT))
    record = RoundRecord("study", "run", 2, 5, silent, failed="round 2: no usable update")
    ReportBook(tmp_path / "rounds", SigningKey.generate()).write(record)
    assert why_refused(tmp_path, 0) == ""
