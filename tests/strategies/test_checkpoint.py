"""Checkpoints: whole or absent, the newest readable one wins, whatever stops the writing."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from wardround.privacy.disk import Disk
from wardround.privacy.errors import BadInput
from wardround.strategies.checkpoint import (
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
    write_atomically,
)

Write = Callable[[Path, bytes, Disk], None]


def checkpoint(number: int) -> Checkpoint:
    return Checkpoint(number, {"a": torch.full((3,), float(number))}, {"run": "r"})


def test_keeps_the_last_two(tmp_path: Path) -> None:
    for number in range(5):
        save_checkpoint(tmp_path, checkpoint(number))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "round-0003.safetensors",
        "round-0004.safetensors",
    ]
    loaded = load_checkpoint(tmp_path)
    assert loaded.round == 4
    assert loaded.state == {"run": "r"}
    assert torch.equal(loaded.arrays["a"], torch.full((3,), 4.0))


def test_round_10000_comes_after_9999(tmp_path: Path) -> None:
    for number in (9998, 9999, 10_000, 10_001):
        save_checkpoint(tmp_path, checkpoint(number))
    assert load_checkpoint(tmp_path).round == 10_001
    assert len(list(tmp_path.iterdir())) == 2


def test_a_damaged_newest_falls_back(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1))
    save_checkpoint(tmp_path, checkpoint(2))
    newest = tmp_path / "round-0002.safetensors"
    newest.write_bytes(newest.read_bytes()[:-7])
    assert load_checkpoint(tmp_path).round == 1


def test_a_renamed_checkpoint_is_not_another_rounds(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1))
    (tmp_path / "round-0001.safetensors").rename(tmp_path / "round-0007.safetensors")
    with pytest.raises(BadInput, match="named after"):
        load_checkpoint(tmp_path)


def test_none_or_none_readable_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no checkpoint"):
        load_checkpoint(tmp_path)
    (tmp_path / "round-0001.safetensors").write_bytes(b"garbage")
    with pytest.raises(BadInput, match="no readable checkpoint"):
        load_checkpoint(tmp_path)


def machine(failing_disk: ModuleType, write: Write) -> type[RuleBasedStateMachine]:
    """A file written again and again on a disk that dies, loses power or refuses at any operation.

    The file may hold what was last acknowledged, or what was being written when the disk died;
    whichever it was seen to hold counts from then on.
    """

    class Machine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.folder = Path(tempfile.mkdtemp(prefix="wardround-atomic-"))
            self.path = self.folder / "file"
            self.may: set[bytes | None] = {None}

        @rule(content=st.binary(max_size=40))
        def write(self, content: bytes) -> None:
            disk = failing_disk.FailingDisk(0, "before")
            write(self.path, content, disk)
            disk.lose_power(0.0)  # acknowledged means durable
            self.may = {content}

        @rule(
            content=st.binary(min_size=2, max_size=40),
            fail_at=st.integers(1, 4),
            how=st.sampled_from(["before", "torn", "after"]),
            kept=st.sampled_from([(), (0.0,), (0.5,), (1.0,), (0.0, 1.0), (1.0, 0.0)]),
        )
        def die(self, content: bytes, fail_at: int, how: str, kept: tuple[float, ...]) -> None:
            disk = failing_disk.FailingDisk(fail_at, how)
            try:
                write(self.path, content, disk)
            except failing_disk.Crash:
                self.may |= {content}
            else:
                self.may = {content}
            if kept:
                disk.lose_power(*kept)

        @rule(content=st.binary(min_size=1, max_size=40), fail_at=st.integers(1, 3))
        def refuse(self, content: bytes, fail_at: int) -> None:
            try:
                write(self.path, content, failing_disk.FailingDisk(fail_at, "full"))
            except OSError:
                assert [p.name for p in self.folder.iterdir() if p != self.path] == []
            else:
                self.may = {content}

        @invariant()
        def the_file_is_whole(self) -> None:
            found = self.path.read_bytes() if self.path.exists() else None
            assert found in self.may
            self.may = {found}

        def teardown(self) -> None:
            shutil.rmtree(self.folder)

    return Machine


SETTINGS: dict[str, Any] = {
    "max_examples": 50,
    "stateful_step_count": 12,
    "deadline": None,
    "derandomize": True,
    "report_multiple_bugs": False,
    "suppress_health_check": [HealthCheck.too_slow],
}


@pytest.mark.fault
def test_writing_is_atomic_whatever_happens(failing_disk: ModuleType) -> None:
    run_state_machine_as_test(
        machine(failing_disk, write_atomically), settings=settings(**SETTINGS)
    )


def write_in_place(path: Path, content: bytes, disk: Disk) -> None:
    with path.open("r+b" if path.exists() else "w+b") as file:
        disk.truncate(file.fileno(), 0)
        disk.write(file.fileno(), content, 0)
        disk.sync(file.fileno())
    disk.sync_folder(path.parent)


def rename_without_sync(path: Path, content: bytes, disk: Disk) -> None:
    part = path.with_name("file.part")
    with part.open("w+b") as file:
        disk.write(file.fileno(), content, 0)
    disk.replace(part, path)


@pytest.mark.fault
@pytest.mark.parametrize("write", [write_in_place, rename_without_sync])
def test_the_test_catches_what_is_not_atomic(failing_disk: ModuleType, write: Write) -> None:
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine(failing_disk, write), settings=settings(**SETTINGS))
