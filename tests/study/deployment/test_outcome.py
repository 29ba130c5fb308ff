"""What ``coordinator run`` makes of what Flower says of a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flwr.supercore.error import catalog

from wardround.privacy.errors import WardroundError
from wardround.privacy.signing import SigningKey
from wardround.server.book import ReportBook, RoundRecord
from wardround.study.deployment import coordinator
from wardround.study.deployment.coordinator import CoordinatorPlace, wait_for_outcome
from wardround.study.deployment.runs import why_failed
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


def test_a_superlink_that_cannot_be_reached_for_a_while_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gone = {"success": False, "error-message": "Connection to the SuperLink is unavailable."}
    slept = wait(monkeypatch, status("running"), gone, gone, status("finished:completed"))
    assert len(slept) == 3


def test_a_run_that_the_superlink_has_forgotten_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In memory alone: a SuperLink that was started again would be asked for ever."""
    forgotten = {"success": False, "error-message": "Run ID not found."}
    with pytest.raises(WardroundError, match=r"run 7: .* forgotten it; .* --resume"):
        wait(monkeypatch, status("running"), forgotten)


def test_those_are_flowers_words() -> None:
    assert coordinator._FORGOTTEN in Path(str(catalog.__file__)).read_text(encoding="utf-8")


def test_a_failed_run_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WardroundError, match=r"finished:failed; superexec\.log says why"):
        wait(monkeypatch, status("starting"), status("finished:failed"))


def test_a_run_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WardroundError, match="still running after 100 s"):
        wait(monkeypatch, *[status("running")] * 100)


def test_why_a_round_failed_is_said_once(tmp_path: Path) -> None:
    """A run that goes on and ends for another reason does not repeat the old one."""
    assert why_failed(tmp_path, 0) == ""
    why = "round 2: no usable update (north: BudgetExceeded: no more)"
    record = RoundRecord("study", "run", 2, 5, (), failed=why)
    ReportBook(tmp_path / "rounds", SigningKey.generate()).write(record)
    assert why_failed(tmp_path, 0) == f": {why}"
    assert why_failed(tmp_path, 1) == ""
