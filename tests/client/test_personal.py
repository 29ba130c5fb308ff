"""What a hospital keeps to itself: whole or not at all, by run, of the round before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from wardround.client.custodian import Custodian
from wardround.client.personal import Personal
from wardround.privacy.errors import BadMessage
from wardround.privacy.ledger import Ledger
from wardround.privacy.plan import Mode
from wardround.privacy.signing import sha256
from wardround.strategies.codec import encode


@pytest.fixture
def custodian(setting: Any) -> Iterator[Custodian]:
    """A hospital asked for A alone, that brings its own B."""
    b = tuple(name for name in setting.shapes if ".lora_B." in name)
    a = tuple(setting.shapes.keys() - set(b))
    arrays = {name: torch.full(setting.shapes[name], 0.02) for name in a}
    setting.block = encode({"kind": "global"}, arrays)
    setting.plan = replace(setting.plan, arrays_sha256=sha256(setting.block), trains=a, keeps=b)
    opened = setting.open()
    yield opened
    opened.close()


def test_the_newest_before_the_round(tmp_path: Path) -> None:
    personal = Personal(tmp_path)
    assert personal.load("run", 1) == {}
    for number in (1, 2, 4):
        personal.save("run", number, {"b": torch.full((2,), float(number))})
    assert float(personal.load("run", 5)["b"][0]) == 4
    assert float(personal.load("run", 4)["b"][0]) == 2
    assert personal.load("run", 2) == {}  # round 1 was dropped: two are kept
    assert personal.load("another", 5) == {}


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    personal = Personal(tmp_path)
    personal.save("run", 1, {"b": torch.ones(2)})
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(BadMessage, match="round-000001"):
        personal.load("run", 2)


def test_what_is_kept_trains_and_does_not_leave(setting: Any, custodian: Custodian) -> None:
    header, arrays = setting.ask(custodian)
    assert header["kind"] == "update", header
    assert set(arrays) == set(setting.plan.trains)
    own = Personal(setting.hospital.folder / "personal").load("run-1", 2)
    assert set(own) == set(setting.plan.keeps)
    assert all(bool(array.any()) for array in own.values())
    setting.ask(custodian, round=2)
    later = Personal(setting.hospital.folder / "personal").load("run-1", 3)
    assert all(not torch.equal(later[name], own[name]) for name in own)


def test_a_repeated_round_starts_where_it_started(
    setting: Any, custodian: Custodian, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between keeping and answering, a round is done again from the round before.

    Bare training is repeatable here, because every record joins every step.
    """
    custodian.close()
    setting.policy(lambda tables: tables["data"].update(provenance="generated"))
    bare = replace(
        setting.plan.privacy, mode=Mode.NONE, noise_multiplier=0.0, sampling_rate=1.0, steps=1
    )
    folder = setting.hospital.folder / "personal"

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    opened = setting.open()
    setting.ask(opened, privacy=bare)
    first = Personal(folder).load("run-1", 2)
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "commit", killed)
        with pytest.raises(KeyboardInterrupt):
            setting.ask(opened, privacy=bare, round=2)
    unanswered = Personal(folder).load("run-1", 3)
    header, _ = setting.ask(opened, privacy=bare, round=2)
    assert header["kind"] == "update", header
    again = Personal(folder).load("run-1", 3)
    opened.close()
    for name in first:
        assert torch.equal(again[name], unanswered[name])
        assert not torch.equal(again[name], first[name])


def test_what_is_kept_must_train(setting: Any, custodian: Custodian) -> None:
    header, _ = setting.ask(custodian, keeps=("nothing",))
    assert "array 'nothing' does not train" in header["reason"]
