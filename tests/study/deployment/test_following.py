"""Following a run with a fake SuperLink: lost runs go on, hopeless ones end, nothing is endless."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from wardround.privacy.errors import WardroundError
from wardround.study.deployment.coordinator import UNKNOWN
from wardround.study.deployment.following import IN_VAIN, Progress, follow
from wardround.study.deployment.server_app import held, logged

RUNNING, FAILED, COMPLETED = "running", "finished:failed", "finished:completed"


@dataclass
class SuperLink:
    """Says what it was told to, one look after the other; None is nobody there."""

    says: Iterator[str | None]
    rounds: Iterator[int] = field(default_factory=lambda: iter(()))
    now: float = 0.0
    started: int = 0
    asked: list[str] = field(default_factory=list)
    reached: int = 0
    refused: str = ""

    def start(self) -> str:
        self.started += 1
        return f"run-{self.started}"

    def status(self, identifier: str) -> str:
        self.asked.append(identifier)
        self.reached = next(self.rounds, self.reached)
        said = next(self.says)
        if said is None:
            raise WardroundError("nobody there")
        return said

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def follow(self, timeout_s: float = 1e6) -> None:
        follow(
            self.start,
            self.status,
            lambda: Progress(self.reached, 0),
            lambda: self.refused,
            timeout_s,
            lambda: self.now,
            self.sleep,
        )


def test_waits_for_the_end() -> None:
    superlink = SuperLink(iter([RUNNING, RUNNING, COMPLETED]))
    superlink.follow()
    assert superlink.started == 1
    assert superlink.now == pytest.approx(30.0)


def test_a_superlink_that_was_away_and_has_forgotten_the_run_gets_it_again() -> None:
    superlink = SuperLink(iter([RUNNING, None, None, UNKNOWN, RUNNING, COMPLETED]))
    superlink.follow()
    assert superlink.asked == ["run-1"] * 4 + ["run-2"] * 2


def test_a_run_that_failed_goes_on_as_long_as_it_comes_further() -> None:
    superlink = SuperLink(iter([FAILED] * 10 + [COMPLETED]), rounds=iter(range(1, 20)))
    superlink.follow()
    assert superlink.started == 11


def test_a_run_that_fails_without_coming_further_has_failed() -> None:
    superlink = SuperLink(iter([FAILED] * 10), rounds=iter([3]))
    with pytest.raises(WardroundError, match=r"run-3: finished:failed, again; serverapp\.log"):
        superlink.follow()
    assert superlink.started == IN_VAIN


def test_a_run_that_hospitals_refused_is_not_asked_for_again() -> None:
    superlink = SuperLink(iter([RUNNING, FAILED]), refused="round 2: north: the budget is spent")
    with pytest.raises(WardroundError, match="finished:failed: round 2: north: the budget is"):
        superlink.follow()
    assert superlink.started == 1


def test_a_run_of_long_rounds_is_looked_at_seldom() -> None:
    """A look costs a second: every 10 s at first, then an eighth of the time without news, 60 s."""
    superlink = SuperLink(iter([RUNNING] * 200))
    with pytest.raises(WardroundError, match="still running after 7200 s"):
        superlink.follow(7200.0)
    assert 150 > len(superlink.asked) > 7200 / 60
    superlink = SuperLink(iter([RUNNING] * 800), rounds=iter(range(800)))
    with pytest.raises(WardroundError, match="still running after 7200 s"):
        superlink.follow(7200.0)
    assert len(superlink.asked) == pytest.approx(720, abs=40)


def test_a_run_that_somebody_stopped_stays_stopped() -> None:
    superlink = SuperLink(iter(["finished:stopped"]))
    with pytest.raises(WardroundError, match="was stopped"):
        superlink.follow()
    assert superlink.started == 1


def test_time_is_up_also_where_nobody_is_there() -> None:
    superlink = SuperLink(iter([None] * 1000))
    with pytest.raises(WardroundError, match="still unreachable after 100 s"):
        superlink.follow(100.0)
    assert superlink.now == pytest.approx(100.0, abs=10.0)


def test_two_serverapps_do_not_go_on_with_the_same_run(tmp_path: Path) -> None:
    """The second waits for the first to go, and says so when it does not."""
    (tmp_path / "coordinator").mkdir()
    now = [0.0]

    def wait(then: Callable[[], None]) -> Callable[[float], None]:
        def sleep(seconds: float) -> None:
            now[0] += seconds
            then()

        return sleep

    first = ExitStack()
    first.enter_context(held(tmp_path, 0.0))
    with (
        pytest.raises(WardroundError, match="another process goes on with this run"),
        held(tmp_path, 5.0, lambda: now[0], wait(lambda: None)),
    ):
        pytest.fail("had a folder that another has")
    assert now[0] == pytest.approx(5.0, abs=0.3)
    with held(tmp_path, 5.0, lambda: now[0], wait(first.close)):
        assert now[0] == pytest.approx(5.5, abs=0.3)


def test_a_serverapp_leaves_in_the_folder_what_it_failed_with(tmp_path: Path) -> None:
    """What anything else than an error of ours says may be about anything, so it stays out."""
    with pytest.raises(WardroundError), logged(tmp_path):
        raise WardroundError("round 3: no usable update")
    with pytest.raises(ValueError, match="secret"), logged(tmp_path):
        raise ValueError("secret")
    with logged(tmp_path):
        pass
    said = (tmp_path / "serverapp.log").read_text(encoding="utf-8")
    assert said.count("started") == 3
    assert "failed reason=round 3: no usable update" in said
    assert "failed exception=ValueError" in said
    assert "secret" not in said
    assert said.splitlines()[-1].endswith("completed")
