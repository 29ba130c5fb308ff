"""A message is sent again after passing errors and silence, twice at most, under the same name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.supercore.task_identity import TaskIdentity

from wardround.server.resending import AWAY, PASSING, ResendingGrid

Answer = Callable[[int], int | None]


@pytest.fixture(autouse=True)
def _identity(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("_task_id", 1), ("_run_id", 1), ("_node_id", 1)):
        monkeypatch.setattr(TaskIdentity, name, value)


class Lossy:
    """Answers the n-th copy with an error code, with 0 for an answer, or not at all (None)."""

    def __init__(self, *answers: int | None) -> None:
        self.answers = answers
        self.online = [7]
        self.sent: list[Message] = []
        self._taken: set[str] = set()

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"m{len(self.sent)}"
            self.sent.append(message)
            ids.append(f"m{len(self.sent) - 1}")
        return ids

    def get_node_ids(self) -> list[int]:
        return self.online

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        found = []
        for identifier in message_ids:
            code = self.answers[int(identifier[1:])]
            if code is None or identifier in self._taken:
                continue
            self._taken.add(identifier)
            asked = self.sent[int(identifier[1:])]
            body: Any = Error(code) if code else RecordDict({"c": ConfigRecord({"id": identifier})})
            found.append(Message(body, reply_to=asked))
        return found


def a_message() -> Message:
    return Message(RecordDict({"c": ConfigRecord({"word": "x"})}), 7, "train", group_id="3")


def outcome(grid: ResendingGrid, looks: int = 8, wait: Callable[[], None] = lambda: None) -> str:
    """What is shown of one message in so many looks."""
    (identifier,) = grid.push_messages([a_message()])
    for _ in range(looks):
        for reply in grid.pull_messages([identifier]):
            assert list(grid.pull_messages([identifier])) == []
            return f"error {reply.error.code}" if reply.has_error() else str(reply.content["c"])
        wait()
    return "nothing"


@pytest.mark.parametrize(
    ("answers", "shown", "copies"),
    [
        ((0,), "m0", 1),
        ((2, 0), "m1", 2),
        ((8, 2, 0), "m2", 3),
        ((2, 2, 2), "error 2", 3),
        ((7,), "error 7", 1),
        ((8, 7), "error 7", 2),
        ((None,), "nothing", 1),
    ],
)
def test_passing_errors(answers: tuple[int | None, ...], shown: str, copies: int) -> None:
    lossy: Any = Lossy(*answers)
    assert shown in outcome(ResendingGrid(lossy, clock=lambda: 0.0))
    assert len(lossy.sent) == copies
    assert {(m.metadata.dst_node_id, m.metadata.group_id) for m in lossy.sent} == {(7, "3")}
    assert all(m.content == lossy.sent[0].content for m in lossy.sent)


@pytest.mark.parametrize(
    ("answers", "shown", "copies"),
    [
        ((None, 0), "m1", 2),
        ((None, None, 0), "m2", 3),
        ((None, None, None), "nothing", 3),
        ((None, 2, 0), "m2", 3),
        ((None, 8, 8), "nothing", 3),
    ],
)
def test_silence(answers: tuple[int | None, ...], shown: str, copies: int) -> None:
    """A copy that is still out may be answered yet, so no other's passing error is shown."""
    lossy: Any = Lossy(*answers)
    now = [0.0]
    grid = ResendingGrid(lossy, patience_s=10.0, clock=lambda: now[0])

    def wait() -> None:
        now[0] += 6.0

    assert shown in outcome(grid, 20, wait)
    assert len(lossy.sent) == copies


def test_the_first_copy_may_be_the_one_that_is_answered() -> None:
    lossy: Any = Lossy(None, None, None)
    now = [0.0]
    grid = ResendingGrid(lossy, patience_s=10.0, clock=lambda: now[0])
    (identifier,) = grid.push_messages([a_message()])
    now[0] = 11.0
    assert list(grid.pull_messages([identifier])) == []
    lossy.answers = (0, None, None)
    (reply,) = grid.pull_messages([identifier])
    assert "m0" in str(reply.content["c"])
    assert len(lossy.sent) == 2


def test_a_node_that_went_offline_is_asked_again_when_it_is_back_and_not_before() -> None:
    """Each time it does, within a bound; sending to a node that is away brings an error at once."""
    lossy: Any = Lossy(5, 5, 5, 0)
    now = [0.0]
    grid = ResendingGrid(lossy, absence_s=100.0, clock=lambda: now[0])
    (identifier,) = grid.push_messages([a_message()])
    for copies in (1, 2, 3):
        lossy.online = []
        for _ in range(10):
            assert list(grid.pull_messages([identifier])) == []
            now[0] += 3.0
        assert len(lossy.sent) == copies
        lossy.online = [7]
        assert list(grid.pull_messages([identifier])) == []
        assert len(lossy.sent) == copies + 1
    (reply,) = grid.pull_messages([identifier])
    assert "m3" in str(reply.content["c"])


def test_a_node_that_stays_away_is_waited_for_once() -> None:
    """Not in every round; but again once it was seen online."""
    lossy: Any = Lossy(*[5] * 6)
    lossy.online = []
    now = [0.0]
    grid = ResendingGrid(lossy, absence_s=100.0, clock=lambda: now[0])

    def waited() -> float:
        (identifier,), began = grid.push_messages([a_message()]), now[0]
        for _ in range(200):
            for reply in grid.pull_messages([identifier]):
                assert reply.error.code == 5
                return now[0] - began
            now[0] += 1.0
        raise AssertionError("no error was shown")

    assert waited() == pytest.approx(100.0)
    assert waited() <= 1.0
    now[0] += 1.0
    lossy.online = [7]
    (identifier,) = grid.push_messages([a_message()])
    assert list(grid.pull_messages([identifier])) == []
    lossy.online = []
    for _ in range(50):
        now[0] += 1.0
        assert list(grid.pull_messages([identifier])) == []


def test_the_codes_are_flowers() -> None:
    assert {ErrorCode.CLIENT_APP_RAISED_EXCEPTION, ErrorCode.CLIENT_APP_CRASHED} == PASSING
    assert ErrorCode.NODE_UNAVAILABLE == AWAY
