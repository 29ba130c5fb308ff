"""What ``wardround hospital`` refuses before it opens or serves anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wardround.privacy.errors import BadInput
from wardround.study.deployment.custodian_process import read_members

Command = Callable[..., Any]
FILES = ("--records", "notes.jsonl", "--policy", "policy.toml")
WHO = ("--name", "north", "--coordinator", "0" * 64)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "give either --socket or --listen"),
        (("--socket", "s/c", "--listen", "localhost:1"), "give either --socket or --listen"),
        (("--listen", "localhost:1"), "--listen needs --authority and --identity"),
        (("--socket", "x" * 120), "the system allows 107"),
    ],
)
def test_a_place_is_one_place(wardround: Command, words: tuple[str, ...], says: str) -> None:
    for command in (("custodian", "north", *FILES, *WHO), ("ready",)):
        ended = wardround("hospital", *command, *words)
        assert ended.code == 2
        assert says in ended.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (WHO, "notes.jsonl: no such file or folder"),
        ((), "kit.json"),
        ((*WHO, "--most-megabytes", "0"), "most_bytes is 0"),
        ((*WHO, "--grace-s", "-1"), "grace_s is -1.0"),
    ],
)
def test_a_custodian_that_cannot_serve(
    wardround: Command, tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    ended = wardround("hospital", "custodian", "north", *FILES, "--socket", "s/c", *words)
    assert ended.code == 2
    assert says in ended.err
    assert not (tmp_path / "north").exists()
    assert not (tmp_path / "s").exists()


def test_nobody_is_ready(wardround: Command) -> None:
    ended = wardround("hospital", "ready", "--socket", "s/c", "--within-s", "0.01")
    assert (ended.code, ended.out) == (3, "not ready\n")


def test_members_are_keys_by_hospital(tmp_path: Path) -> None:
    path = tmp_path / "members.json"
    for text in ("{", "[]", '{"north": 1}'):
        path.write_text(text)
        with pytest.raises(BadInput, match=r"members\.json"):
            read_members(path)
    path.write_text('{"north": "00"}')
    assert read_members(path) == {"north": "00"}
