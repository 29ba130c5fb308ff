"""The resident relay replies whatever happens, answers listed bundles only, and fails closed."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flwr.supernode.runtime.run_clientapp as flower
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.proto import runtime_pb2
from flwr.supercore.task_identity import TaskIdentity

from wardround.client.custody import runtime_api
from wardround.client.custody.flower_app import connect
from wardround.client.custody.resident import Resident, Unanswered, read_allowed
from wardround.client.custody.runtime_api import (
    CONTRACT,
    FlowerChanged,
    SuperNode,
    Task,
    check_contract,
)
from wardround.privacy.errors import BadInput

BUNDLE = "ab" * 32


@pytest.fixture(autouse=True)
def _identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Flower sets for the process of a task; messages cannot be made without."""
    for name, value in (("_task_id", 1), ("_run_id", 1), ("_node_id", 7)):
        monkeypatch.setattr(TaskIdentity, name, value)


def a_context(**node_config: str) -> Context:
    return Context(1, 7, dict(node_config), RecordDict(), {})


def a_message() -> Message:
    message = Message(RecordDict({"c": ConfigRecord({"word": "x"})}), 7, "train", group_id="1")
    message.metadata.__dict__["_message_id"] = "m"
    return message


@dataclass
class Asked:
    """A task that remembers what it was told; ``broken`` names the step that fails."""

    bundle: str = BUNDLE
    broken: str = ""
    replies: list[Message] = field(default_factory=list)
    failure: str | None = None
    abandoned: bool = False

    def pull(self) -> tuple[Message, Context, str]:
        if self.broken == "pull":
            raise RuntimeError("with a secret in it")
        return a_message(), a_context(), self.bundle

    def push(self, reply: Message, context: Context) -> None:
        if self.broken == "push":
            raise OSError("gone")
        self.replies.append(reply)

    def finish(self, context: Context | None, failure: str) -> None:
        self.failure = failure
        if self.broken == "finish":
            raise OSError("gone")

    def abandon(self) -> None:
        self.abandoned = True


@dataclass
class Queue:
    """A runtime with these tasks; the relay is stopped when there are no more."""

    tasks: list[Asked]
    stop: threading.Event = field(default_factory=threading.Event)

    def acquire(self) -> Task | None:
        if self.tasks:
            return self.tasks.pop(0)
        self.stop.set()
        return None


def answer(message: Message, context: Context) -> Message:
    return Message(RecordDict({"heard": ConfigRecord({"word": "x"})}), reply_to=message)


def run(app: Callable[[Message, Context], Message], *tasks: Asked) -> None:
    queue = Queue(list(tasks))
    Resident(queue, app, frozenset({BUNDLE}), poll_s=0.0).run(queue.stop)


def test_a_message_is_answered() -> None:
    task = Asked()
    run(answer, task)
    assert [reply.has_error() for reply in task.replies] == [False]
    assert task.failure == ""


def test_an_unlisted_bundle_gets_no_answer() -> None:
    asked: list[Message] = []

    def never(message: Message, context: Context) -> Message:
        asked.append(message)
        return answer(message, context)

    task = Asked(bundle="cd" * 32)
    run(never, task)
    assert not asked
    assert [reply.error.reason for reply in task.replies] == ["PolicyRefused"]
    assert task.failure == "PolicyRefused"


def test_a_failure_is_replied_to_without_its_message() -> None:
    def failing(message: Message, context: Context) -> Message:
        raise ValueError("with a secret in it")

    first, second = Asked(), Asked()
    run(failing, first, second)
    for task in (first, second):
        (reply,) = task.replies
        assert (reply.error.code, reply.error.reason) == (2, "ValueError")
        assert task.failure == "ValueError"


def test_a_supernode_that_is_not_told_the_end_does_not_end_the_relay() -> None:
    task, following = Asked(broken="finish"), Asked()
    run(answer, task, following)
    assert [len(task.replies), len(following.replies)] == [1, 1]


@pytest.mark.parametrize(("broken", "failure"), [("pull", "RuntimeError"), ("push", "OSError")])
def test_a_message_that_gets_no_reply_ends_the_relay(broken: str, failure: str) -> None:
    """Told that the task is over, a SuperNode without a reply would wait for ever; so it is not."""
    task = Asked(broken=broken)
    with pytest.raises(Unanswered, match=failure) as caught:
        run(answer, task)
    assert "secret" not in str(caught.value)
    assert (task.abandoned, task.failure) == (True, None)


def test_a_stop_replies_to_the_message_at_hand() -> None:
    """Without a reply the SuperNode would wait for ever and take no other message."""
    queue, release = Queue([task := Asked()]), threading.Event()

    def slow(message: Message, context: Context) -> Message:
        queue.stop.set()
        release.wait(20)
        return answer(message, context)

    Resident(queue, slow, frozenset({BUNDLE})).run(queue.stop)
    release.set()
    (reply,) = task.replies
    assert (reply.error.code, reply.error.reason) == (2, "the relay was stopped; ask again")


def test_the_list_is_read_strictly(tmp_path: Path) -> None:
    path = tmp_path / "bundles.txt"
    path.write_text(f"# bundles\n\n{BUNDLE}  of 2026\n{'cd' * 32}\n")
    assert read_allowed(path) == {BUNDLE, "cd" * 32}
    path.write_text(f"{BUNDLE}\n{BUNDLE[:-1]}\n")
    with pytest.raises(BadInput, match=r"bundles\.txt line 2"):
        read_allowed(path)
    with pytest.raises(BadInput, match="No such file"):
        read_allowed(tmp_path / "none")


def test_flowers_names_are_those_we_know() -> None:
    assert len(CONTRACT) == 10
    check_contract()


@pytest.mark.parametrize("change", ["gone", "renamed", "added"])
def test_other_names_start_nothing(
    change: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def renamed(client: Any, reply: Any, context: Any) -> None: ...

    def added(client: Any, message: Any, context: Any, run: Any) -> None: ...

    if change == "gone":
        monkeypatch.delattr(flower, "push_message")
    else:
        monkeypatch.setattr(flower, "push_message", {"renamed": renamed, "added": added}[change])
    (tmp_path / "secret").write_bytes(b"s")
    with pytest.raises(FlowerChanged, match="push_message"):
        SuperNode("localhost:1", tmp_path / "secret").connect()


def test_fields_of_messages_belong_to_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_pb2, "AcquireTaskRequest", runtime_pb2.PushTaskOutputRequest)
    with pytest.raises(FlowerChanged, match="AcquireTaskRequest takes"):
        check_contract()


def test_nobody_there_is_no_task(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s")
    assert SuperNode("127.0.0.1:9", tmp_path / "secret").connect().acquire() is None
    with pytest.raises(BadInput, match="none: No such file"):
        SuperNode("127.0.0.1:9", tmp_path / "none").connect()


def test_flowers_own_executor_is_told_where_the_custodian_is() -> None:
    with pytest.raises(BadInput, match="custodian is missing"):
        connect(a_context())
    connect(a_context(custodian="/run/c/socket"))


def test_relays_import_neither_torch_nor_data_code() -> None:
    code = """
import sys
from wardround.client.custody import flower_app, runtime_api
from wardround.study.deployment import cli, relay_process
runtime_api.check_contract()
print(*sorted(name for name in sys.modules if name.split(".")[0] in (
    "torch", "transformers", "safetensors", "peft", "opacus", "wardround")))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    loaded = set(ended.stdout.split())
    assert {name for name in loaded if not name.startswith("wardround")} == set()
    allowed = ("custody", "relay")
    client = {name.split(".")[2] for name in loaded if name.startswith("wardround.client.")}
    assert client == set(allowed)
    assert runtime_api.__name__ in loaded
