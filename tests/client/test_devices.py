"""Devices by name, and what a machine says is free."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from wardround.client.devices import _free_on_linux, find_device, free_bytes
from wardround.privacy.errors import BadInput


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "CPU", "", "cpu:1", "cuda:-1"])
def test_names_that_mean_nothing(name: str) -> None:
    with pytest.raises(BadInput, match="expected cpu, cuda, cuda:N or auto"):
        find_device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BadInput, match=rf"device is '{name}'; PyTorch .* finds no CUDA device"):
        find_device(name)
    assert find_device("cpu") == "cpu"
    assert find_device("auto") == "cpu"


def test_one_gpu_too_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_device("cuda:1") == "cuda:1"
    assert find_device("auto") == "cuda"
    with pytest.raises(BadInput, match=r"device is 'cuda:2'; this machine has cuda:0 to cuda:1"):
        find_device("cuda:2")


KB = "MemTotal: 900 kB\nMemFree: 1 kB\nMemAvailable:     500 kB\n"


@pytest.mark.parametrize(
    ("limit", "used", "free"),
    [(None, None, 500), ("max", "7", 500), ("204800", "102400", 100), ("9999999", "0", 500),
     ("1024", "4096", 0)],
)  # fmt: skip
def test_what_linux_says(tmp_path: Path, limit: str | None, used: str | None, free: int) -> None:
    """The kernel's figure, or what is left of the container's limit; kB in, bytes out."""
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(KB)
    if limit is not None and used is not None:
        group = tmp_path / "sys/fs/cgroup"
        group.mkdir(parents=True)
        (group / "memory.max").write_text(limit + "\n")
        (group / "memory.current").write_text(used + "\n")
    assert _free_on_linux(tmp_path) == free * 1024


def test_a_system_that_does_not_say(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not say how much memory is free; give a number"):
        _free_on_linux(tmp_path)


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="not Linux")
def test_this_machine_has_some() -> None:
    assert 2**20 < free_bytes("cpu") < 2**50


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_this_gpu_has_some() -> None:
    assert 2**20 < free_bytes("cuda") < 2**50
