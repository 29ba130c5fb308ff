"""Moments kept between rounds: whose they are, when they are used, and what a crash leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from wardround.client import custodian as custodian_module
from wardround.client.memory import OptimizerMemory
from wardround.client.optimizers import Moments
from wardround.privacy.disk import Disk
from wardround.privacy.errors import BadMessage

MOMENTS = Moments(
    {"first/a": torch.tensor([1.0, 2.0]), "second/a": torch.ones(2)}, {"a": 7}, {"a": 0.1}
)


def test_what_was_kept_comes_back(tmp_path: Path) -> None:
    memory = OptimizerMemory(tmp_path / "optimizer")
    assert memory.recall("run", 1, b"s") is None
    memory.keep("run", 3, b"s", MOMENTS)
    found = OptimizerMemory(tmp_path / "optimizer").recall("run", 4, b"s")
    assert found is not None
    assert (found.steps, found.noise_variance) == ({"a": 7}, {"a": 0.1})
    assert {n: a.tolist() for n, a in found.arrays.items()} == {
        "first/a": [1.0, 2.0],
        "second/a": [1.0, 1.0],
    }
    memory.forget("run")
    assert memory.recall("run", 4, b"s") is None
    memory.forget("run")


@pytest.mark.parametrize(
    ("run", "number", "settings"),
    [("other", 4, b"s"), ("run", 3, b"s"), ("run", 2, b"s"), ("run", 4, b"t")],
)
def test_others_moments_are_not_used(
    tmp_path: Path, run: str, number: int, settings: bytes
) -> None:
    """Another run's, this very round's, a later round's, and those of another optimizer."""
    memory = OptimizerMemory(tmp_path)
    memory.keep("run", 3, b"s", MOMENTS)
    assert memory.recall(run, number, settings) is None


def test_a_run_s_name_reaches_no_other_folder(tmp_path: Path) -> None:
    memory = OptimizerMemory(tmp_path / "inside")
    memory.keep("../../outside", 1, b"s", MOMENTS)
    assert [path.parent for path in tmp_path.rglob("*.safetensors")] == [tmp_path / "inside"]


@pytest.mark.fault
def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    class Full(Disk):
        def sync(self, handle: int) -> None:
            raise OSError(28, "No space left on device")

    OptimizerMemory(tmp_path).keep("run", 1, b"s", MOMENTS)
    with pytest.raises(OSError, match="No space"):
        OptimizerMemory(tmp_path, Full()).keep("run", 2, b"s", Moments({}, {}, {}))
    found = OptimizerMemory(tmp_path).recall("run", 2, b"s")
    assert found is not None
    assert found.steps == {"a": 7}
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.fault
@pytest.mark.parametrize("damage", ["cut", "emptied", "overwritten"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    memory = OptimizerMemory(tmp_path)
    memory.keep("run", 1, b"s", MOMENTS)
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()
    path.write_bytes({"cut": data[:-9], "emptied": b"", "overwritten": b"x" * len(data)}[damage])
    with pytest.raises(BadMessage, match="is damaged; delete it to start afresh"):
        memory.recall("run", 2, b"s")


# --- at a custodian -----------------------------------------------------------------------------


def kept(setting: Any) -> list[Path]:
    return sorted((setting.hospital.folder / "optimizer").glob("*"))


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many steps the optimizer remembered at the start of each round."""
    steps: list[int] = []
    real = custodian_module.train_round

    def spy(round_: Any, arrays: Any) -> Any:
        steps.append(0 if round_.moments is None else max(round_.moments.steps.values()))
        return real(round_, arrays)

    monkeypatch.setattr(custodian_module, "train_round", spy)
    return steps


KEEP = {"optimizer": "adam", "learning_rate": 0.02, "keep_state": True}


def test_rounds_go_on_and_the_last_one_tidies_up(setting: Any, watched: list[int]) -> None:
    custodian = setting.open()
    for number in (1, 2, 3, 4):
        header, _ = setting.ask(custodian, round=number, training=KEEP)
        assert header["kind"] == "update"
        assert len(kept(setting)) == (number < 4)
        if number == 2:  # it survives a restart
            custodian.close()
            custodian = setting.open()
    assert watched == [0, 2, 4, 6]
    custodian.close()


def test_by_default_nothing_is_kept(setting: Any, watched: list[int]) -> None:
    custodian = setting.open()
    for number in (1, 2):
        setting.ask(custodian, round=number)
    assert watched == [0, 0]
    assert kept(setting) == []
    custodian.close()


@pytest.mark.fault
def test_a_round_done_anew_starts_where_it_first_started(
    setting: Any, watched: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Round 2 is drawn, then the disk fails before its commit: its moments must not come back."""
    custodian = setting.open()
    setting.ask(custodian, round=1, training=KEEP)
    before = kept(setting)[0].read_bytes()
    with monkeypatch.context() as broken:
        broken.setattr(custodian._ledger, "commit", lambda *_: (_ for _ in ()).throw(OSError(5)))
        with pytest.raises(OSError, match="5"):
            setting.ask(custodian, round=2, training=KEEP)
    assert kept(setting)[0].read_bytes() == before
    header, _ = setting.ask(custodian, round=2, training=KEEP)
    assert header["kind"] == "update"
    assert watched == [0, 2, 2]
    custodian.close()


@pytest.mark.fault
def test_moments_lost_after_the_commit_cost_a_step_not_a_reply(
    setting: Any, watched: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    custodian = setting.open()
    setting.ask(custodian, round=1, training=KEEP)
    with monkeypatch.context() as broken:
        broken.setattr(OptimizerMemory, "keep", lambda *_: (_ for _ in ()).throw(OSError(28)))
        with pytest.raises(OSError, match="28"):
            setting.ask(custodian, round=2, training=KEEP)
    header, _ = setting.ask(custodian, round=2, training=KEEP)  # the stored reply
    assert header["kind"] == "update"
    setting.ask(custodian, round=3, training=KEEP)
    assert watched == [0, 2, 2]
    custodian.close()
