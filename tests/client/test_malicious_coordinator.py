"""A coordinator that lies with a true signature, or somebody else with none, at the level of bytes.

Whatever is asked, the answer is a refusal that the hospital signed; no array leaves, nothing is
charged, and the hospital's log says why. What one wrong field does is in ``test_custodian``.
"""

from __future__ import annotations

import json
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from wardround.client import custodian as module
from wardround.client.custodian import Custodian
from wardround.privacy.envelope import open_bytes, seal_bytes
from wardround.privacy.plan import Mode
from wardround.privacy.signing import SigningKey, canonical, sha256
from wardround.strategies.codec import decode, encode

Asked = tuple[bytes, bytes]  # a sealed plan and a block of arrays


@pytest.fixture
def custodian(setting: Any) -> Iterator[Custodian]:
    opened = setting.open()
    yield opened
    opened.close()


def signed(setting: Any, **fields: Any) -> bytes:
    """A plan with fields that no honest ``RoundPlan`` could hold, truly signed."""
    document = json.loads(setting.plan.to_bytes()) | fields
    return seal_bytes(json.dumps(document).encode(), setting.coordinator, "plan")


def with_block(setting: Any, block: bytes) -> Asked:
    """The plan for these arrays, whatever they are."""
    return setting.sealed(arrays_sha256=sha256(block)), block


def claims_two_gigabytes(setting: Any) -> bytes:
    """A block of a few hundred bytes whose header claims an array of 2 GB."""
    entry = {"dtype": "F32", "shape": [2**29], "data_offsets": [0, 2**31]}
    inner = canonical({"encoding": "fp32", "header": {}}).decode()
    header = canonical({"__metadata__": {"wardround-2": inner}, "a": entry})
    return struct.pack("<Q", len(header)) + header


def bare(setting: Any) -> Asked:
    privacy = replace(setting.plan.privacy, mode=Mode.NONE, noise_multiplier=0.0)
    return setting.sealed(privacy=privacy), setting.block


def nan(setting: Any) -> Asked:
    arrays = {name: torch.full(shape, float("nan")) for name, shape in setting.shapes.items()}
    return with_block(setting, encode({}, arrays))


def wrong_shapes(setting: Any) -> Asked:
    arrays = {name: torch.zeros(3, 3) for name in setting.shapes}
    return with_block(setting, encode({}, arrays))


# What is asked, and a part of the reason that must be given.
REQUESTS: dict[str, tuple[Callable[[Any], Asked], str]] = {
    "no noise": (bare, "provenance is private"),
    "almost no noise": (
        lambda s: (
            s.sealed(privacy=replace(s.plan.privacy, noise_multiplier=1e-9)),
            s.block,
        ),
        "min_noise_multiplier is 0.5",
    ),
    "a thousand rounds": (lambda s: (s.sealed(rounds=1000), s.block), "max_rounds is 10"),
    "NaN arrays": (nan, "not finite"),
    "wrong shapes": (wrong_shapes, "shape"),
    "a claim of 2 GB": (lambda s: with_block(s, claims_two_gigabytes(s)), "arrays end at byte"),
    "a header of 2 GB": (
        lambda s: with_block(s, struct.pack("<Q", 2**31) + b"{}"),
        "the header claims 2147483648 bytes",
    ),
    "an unknown task": (lambda s: (s.sealed(task="exfiltrate"), s.block), "'exfiltrate'"),
    "an unknown strategy": (lambda s: (s.sealed(strategy="keep-all"), s.block), "'keep-all'"),
    "an unknown base": (lambda s: (s.sealed(base_sha256="f" * 64), s.block), "bases does not list"),
    "an unknown schema": (lambda s: (signed(s, schema=2), s.block), "schema is 2"),
    "a field nobody knows": (lambda s: (signed(s, run_code="x"), s.block), "'run_code'"),
    "a value no JSON has": (
        lambda s: (signed(s, training={"learning_rate": float("nan")}), s.block),
        "no plan can be written with",
    ),
    "half a character": (lambda s: (signed(s, run="\ud800"), s.block), "no plan can be written"),
    "a number beyond floats": (
        lambda s: (signed(s, privacy=json.loads(s.plan.to_bytes())["privacy"] | {"steps": 10**400,
                   "clip_norm": 10**400}), s.block),
        "too large a number",
    ),
    "another hospital's plan": (lambda s: (s.sealed(hospital="south"), s.block), "'south'"),
    "somebody else's signature": (
        lambda s: (s.sealed(key=SigningKey.generate()), s.block),
        "does not verify",
    ),
    "a line for the log": (
        lambda s: (s.sealed(hospital="x\nreleased round=1"), s.block),
        "for hospital",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REQUESTS)
def test_nothing_is_given_and_nothing_charged(
    setting: Any, custodian: Custodian, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    make, reason = REQUESTS[what]
    sealed, block = make(setting)
    before = list(custodian._ledger.entries)
    tracemalloc.start()
    reply = custodian.train(sealed, block)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    header, arrays = decode(open_bytes(reply, custodian.public_key, "reply"), "reply")
    assert header["kind"] == "refusal"
    assert reason in header["reason"]
    assert header["reason"] in caplog.text
    assert "\n" not in header["reason"]
    assert not arrays
    assert custodian._ledger.entries == before
    assert peak < 64 * 2**20


def test_a_replayed_plan_gets_old_bytes_and_another_for_its_round_nothing(
    setting: Any, custodian: Custodian, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replays cannot average the noise out: it is drawn once a round."""
    first = custodian.train(setting.sealed(), setting.block)
    entries = list(custodian._ledger.entries)
    monkeypatch.setattr(module, "train_round", lambda *_: pytest.fail("trained again"))
    assert {custodian.train(setting.sealed(), setting.block) for _ in range(3)} == {first}
    for changes in ({"rounds": 5}, {"training": {"learning_rate": 0.5}}, {"strategy": "ffa"}):
        header, arrays = setting.ask(custodian, **changes)
        assert header["kind"] == "refusal"
        assert "another plan" in header["reason"]
        assert not arrays
    assert custodian._ledger.entries == entries


def test_a_long_reason_is_cut(setting: Any, custodian: Custodian) -> None:
    """A plan of megabytes does not come back, nor fill the hospital's log."""
    reply = custodian.train(setting.sealed(training={"x" * 2**20: 1}), setting.block)
    header, _ = decode(open_bytes(reply, custodian.public_key, "reply"), "reply")
    assert header["kind"] == "refusal"
    assert len(header["reason"]) < 5000


def test_a_folder_named_as_base_says_nothing_of_what_is_there(
    setting: Any, custodian: Custodian, tmp_path: Path
) -> None:
    """Missing, empty, or with other weights: one reason, and nothing charged."""
    empty, other = tmp_path / "empty", tmp_path / "other"
    empty.mkdir()
    other.mkdir()
    (other / "model.safetensors").write_bytes(b"0" * 64)
    reasons = set()
    for place in (tmp_path / "missing", empty, other, "no-such-base"):
        reply = custodian.train(setting.sealed(base=str(place)), setting.block)
        header, arrays = decode(open_bytes(reply, custodian.public_key, "reply"), "reply")
        assert header["kind"] == "refusal"
        assert not arrays
        reasons.add(header["reason"])
    assert reasons == {"the plan's base cannot be loaded here; the hospital's log says why"}
