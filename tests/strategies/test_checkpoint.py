"""Checkpoints: whole or absent, the newest readable one wins."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from wardround.privacy.errors import BadInput
from wardround.strategies import checkpoint as module
from wardround.strategies.checkpoint import (
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
    write_atomically,
)


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


def test_a_damaged_newest_falls_back(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1))
    save_checkpoint(tmp_path, checkpoint(2))
    newest = tmp_path / "round-0002.safetensors"
    newest.write_bytes(newest.read_bytes()[:-7])
    assert load_checkpoint(tmp_path).round == 1


def test_none_or_none_readable_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no checkpoint"):
        load_checkpoint(tmp_path)
    (tmp_path / "round-0001.safetensors").write_bytes(b"garbage")
    with pytest.raises(BadInput, match="no readable checkpoint"):
        load_checkpoint(tmp_path)


@pytest.mark.fault
def test_a_failing_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
