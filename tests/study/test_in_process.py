"""The in-process engine: real Flower objects, everything through the wire, names still there."""

from __future__ import annotations

import inspect

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from wardround.study.engines.in_process import InProcessGrid


def echo() -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        if message.content.config_records["c"]["word"] == "fail":
            raise ValueError("with a secret in it")
        name = str(context.node_config["hospital"])
        content = RecordDict({"c": ConfigRecord({"heard": f"{name}: {message.content['c']}"})})
        return Message(content, reply_to=message)

    return app


def ask(grid: InProcessGrid, *words: str) -> list[Message]:
    messages = [
        Message(RecordDict({"c": ConfigRecord({"word": word})}), node, "train", group_id="1")
        for node, word in zip(grid.get_node_ids(), words, strict=False)
    ]
    return list(grid.send_and_receive(messages))


def test_every_message_reaches_its_hospital() -> None:
    replies = ask(InProcessGrid(echo(), {7: "east", 8: "west"}), "a", "b")
    heard = [str(reply.content["c"]["heard"]) for reply in replies]  # type: ignore[index,call-overload]
    assert heard[0].startswith("east: ")
    assert "'a'" in heard[0]
    assert heard[1].startswith("west: ")
    assert [reply.metadata.src_node_id for reply in replies] == [7, 8]


def test_what_cannot_be_serialised_does_not_pass() -> None:
    grid = InProcessGrid(echo(), {7: "east"})
    message = Message(RecordDict(), 7, "train", group_id="1")
    message.content.__dict__["_data"] = {"c": object()}
    with pytest.raises(Exception):  # noqa: B017, PT011 - Flower's own, of no fixed type
        list(grid.send_and_receive([message]))


def test_an_app_that_raises_is_an_error_without_its_message() -> None:
    (reply,) = ask(InProcessGrid(echo(), {7: "east"}), "fail")
    assert reply.has_error()
    assert "secret" not in str(reply.error)


def test_the_names_of_flower_that_are_used_are_still_there() -> None:
    """A new flwr that moves these must be met by a change here, not by a puzzled user."""
    from flwr.supercore.inflatable.inflatable_object import (
        get_all_nested_objects,
        no_object_id_recompute,
    )
    from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
    from flwr.supercore.task_identity import TaskIdentity

    assert {"task_id", "run_id", "node_id"} <= set(dir(type(TaskIdentity)))
    assert not inspect.signature(no_object_id_recompute).parameters
    assert "obj" in inspect.signature(get_all_nested_objects).parameters
    assert list(inspect.signature(inflate_object_from_contents).parameters)[:2] == [
        "object_id",
        "object_contents",
    ]
    assert Grid.__abstractmethods__ == {
        "set_run",
        "run",
        "create_message",
        "get_node_ids",
        "push_messages",
        "pull_messages",
        "send_and_receive",
    }
