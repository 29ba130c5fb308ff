"""What ``wardround hospital`` refuses before it opens or serves anything."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.cli.build import build_fab_from_disk

from wardround.client.custody.resident import read_allowed
from wardround.privacy.errors import BadInput
from wardround.privacy.signing import sha256
from wardround.study.deployment.custodian_process import read_members
from wardround.study.deployment.server_app import wait_for_nodes

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


@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")
def test_both_ends_come_to_the_same_bundle(wardround: Command, tmp_path: Path) -> None:
    printed = wardround("hospital", "bundle").out
    assert re.fullmatch(r"[0-9a-f]{64}\n", printed)
    assert wardround("coordinator", "bundle", "--out", "study").out == printed
    found = sha256(build_fab_from_disk(tmp_path / "study"))
    assert f"{found}\n" == printed
    assert [path.name for path in (tmp_path / "study").iterdir()] == ["pyproject.toml"]
    assert wardround("coordinator", "bundle", "--out", "study").code == 2
    (tmp_path / "bundles.txt").write_text(printed)
    assert read_allowed(tmp_path / "bundles.txt") == {found}


def test_a_relay_that_cannot_start(wardround: Command, tmp_path: Path) -> None:
    words = ("--supernode", "127.0.0.1:9", "--secret", "none", "--allow", "bundles.txt")
    ended = wardround("hospital", "relay", *words, "--socket", "s/c")
    assert ended.code == 2
    assert "none: No such file" in ended.err


def test_whoever_is_online_in_time_is_waited_for() -> None:
    now = [0.0]

    class Nodes:
        def get_node_ids(self) -> list[int]:
            return [1, 2] if now[0] >= 3.0 else [1]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    grid: Any = Nodes()
    wait_for_nodes(grid, 2, 10.0, lambda: now[0], sleep)
    assert 3.0 <= now[0] < 3.5
    wait_for_nodes(grid, 3, 10.0, lambda: now[0], sleep)
    assert 13.0 <= now[0] < 14.0
