"""The custodian: what it gives, what it refuses, and that it charges first and once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from wardround.client import custodian as module
from wardround.client.custodian import Custodian
from wardround.client.letterhead import Letterhead
from wardround.client.refusals import RefusalBook
from wardround.privacy.accountant import epsilon
from wardround.privacy.chain import LedgerHead
from wardround.privacy.envelope import open_bytes
from wardround.privacy.errors import BadInput, LedgerError
from wardround.privacy.events import Gaussian, PoissonSampled, Repeated
from wardround.privacy.plan import Mechanism, Mode, PrivacyPlan
from wardround.privacy.signing import SigningKey
from wardround.privacy.stream import SecureStream
from wardround.privacy.units import Unit
from wardround.strategies.codec import decode, encode

# 2 steps of Poisson-sampled Gaussian noise, accounted by dp-accounting's PLD.
PRICE = epsilon(Repeated(PoissonSampled(0.1, Gaussian(1.0)), 2), 1e-5)


@pytest.fixture
def custodian(setting: Any) -> Iterator[Custodian]:
    opened = setting.open()
    yield opened
    opened.close()


def reserves(opened: Custodian) -> list[int]:
    """Rounds charged so far."""
    return [e["round"] for e in opened._ledger.entries if e["kind"] == "reserve"]


def test_gives_a_signed_update_with_its_price(setting: Any, custodian: Custodian) -> None:
    header, arrays = setting.ask(custodian)
    assert header["kind"] == "update"
    assert header["plan_sha256"] == setting.plan.sha256
    assert {name: array.shape for name, array in arrays.items()} == setting.shapes
    assert all(bool(array.any()) for array in arrays.values())
    assert header["report"]["epsilon_study"] == PRICE
    assert header["report"]["epsilon_life"] == PRICE


def test_only_what_trains_is_noised_and_leaves(setting: Any, custodian: Custodian) -> None:
    b = tuple(name for name in setting.shapes if ".lora_B." in name)
    header, arrays = setting.ask(custodian, trains=b)
    assert header["kind"] == "update"
    assert set(arrays) == set(b)
    # Of the parts of a plan in turns only those whose step comes leave the values they had.
    a = tuple(setting.shapes.keys() - set(b))
    _, arrays = setting.ask(custodian, round=2, trains=a + b, turns=(b, a))
    assert {name for name, array in arrays.items() if bool(array.any())} == {*a, *b}
    one_step = replace(setting.plan.privacy, steps=1)
    changes = {"trains": a + b, "turns": (b, a), "privacy": one_step}
    _, arrays = setting.ask(custodian, round=3, **changes)
    assert {name for name, array in arrays.items() if bool(array.any())} == set(b)


def test_a_repeated_request_gets_the_same_bytes_for_one_charge(
    setting: Any, custodian: Custodian
) -> None:
    first = custodian.train(setting.sealed(), setting.block)
    assert custodian.train(setting.sealed(), setting.block) == first
    assert reserves(custodian) == [1]
    custodian.close()
    again = setting.open()
    assert again.train(setting.sealed(), setting.block) == first
    assert reserves(again) == [1]
    again.close()


def test_noise_differs_between_rounds_hospitals_and_restarts(
    setting: Any, custodian: Custodian
) -> None:
    _, first = setting.ask(custodian)
    _, second = setting.ask(custodian, round=2)
    name = next(iter(first))
    assert not torch.equal(first[name], second[name])


def test_another_plan_for_a_charged_round_is_refused(setting: Any, custodian: Custodian) -> None:
    setting.ask(custodian)
    more_noise = replace(setting.plan.privacy, noise_multiplier=2.0)
    header, arrays = setting.ask(custodian, privacy=more_noise)
    assert header["kind"] == "refusal"
    assert "another plan" in header["reason"]
    assert not arrays
    assert reserves(custodian) == [1]


def test_work_that_released_nothing_is_redone_under_its_charge(
    setting: Any, custodian: Custodian, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when that one charge has used the budget up: the redo costs nothing more."""
    once = epsilon(Repeated(PoissonSampled(0.1, Gaussian(1.0)), 2), 1e-5)
    custodian.close()
    setting.policy(lambda tables: tables["budget"].update(epsilon=once * 1.001))

    def out_of_memory(*_: Any) -> None:
        raise MemoryError

    failing = setting.open()
    with monkeypatch.context() as patch:
        patch.setattr(module, "train_round", out_of_memory)
        with pytest.raises(MemoryError):
            failing.train(setting.sealed(), setting.block)
    assert reserves(failing) == [1]
    header, _ = setting.ask(failing)
    assert header["kind"] == "update"
    assert reserves(failing) == [1]
    header, _ = setting.ask(failing, round=2)
    assert header["error"] == "BudgetExceeded"
    failing.close()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"task": "ranking"}, "tasks does not list 'ranking'"),
        ({"base_sha256": "0" * 64}, "bases does not list"),
        ({"strategy": "krum"}, "strategies does not list"),
        ({"rounds": 11}, "max_rounds is 10"),
        ({"hospital": "south"}, "for hospital 'south'"),
        ({"arrays_sha256": "0" * 64}, "arrays are not those"),
        ({"training": {"learning_rate": -1.0}}, "learning_rate is -1.0"),
        ({"training": {"lr": 1.0}}, "unknown key 'lr'"),
        ({"adapter": {"rank": 2, "targets": ["nowhere"]}}, "nowhere"),
        ({"task_config": {"eoss": True}}, "'eoss'"),
        ({"trains": ("nothing",)}, "array 'nothing' does not train"),
    ],
)
def test_refusals_name_the_reason_and_cost_nothing(
    setting: Any, custodian: Custodian, changes: dict[str, Any], says: str
) -> None:
    header, arrays = setting.ask(custodian, **changes)
    assert header["kind"] == "refusal"
    assert says in header["reason"]
    assert not arrays
    assert reserves(custodian) == []


def test_every_reason_is_named(setting: Any, custodian: Custodian) -> None:
    weak = replace(setting.plan.privacy, noise_multiplier=0.1)
    header, _ = setting.ask(custodian, privacy=weak, strategy="krum", rounds=99)
    for part in ("strategies", "max_rounds", "min_noise_multiplier"):
        assert part in header["reason"]


def test_private_data_is_not_used_bare(setting: Any, custodian: Custodian) -> None:
    bare = replace(setting.plan.privacy, mode=Mode.NONE, noise_multiplier=0.0)
    header, _ = setting.ask(custodian, privacy=bare)
    assert "provenance is private" in header["reason"]
    assert reserves(custodian) == []


def test_a_declaration_after_an_unprotected_run(setting: Any, custodian: Custodian) -> None:
    """Infinity is no JSON: what was spent is null, and the reply stays readable."""

    def declared() -> dict[str, Any]:
        payload = open_bytes(custodian.declare(), custodian.public_key, "reply")
        return decode(payload, "reply")[0]

    assert declared()["epsilon_spent"] == 0.0
    custodian.close()
    setting.policy(lambda tables: tables["data"].update(provenance="generated"))
    custodian = setting.open()
    bare = replace(setting.plan.privacy, mode=Mode.NONE, noise_multiplier=0.0)
    header, _ = setting.ask(custodian, privacy=bare)
    assert header["kind"] == "update"
    assert header["report"]["epsilon_life"] is None
    assert declared()["epsilon_spent"] is None
    assert declared()["epsilon_budget"] == 8.0
    custodian.close()


def test_a_whole_site_needs_no_owner(setting: Any, custodian: Custodian) -> None:
    custodian.close()
    setting.policy(lambda tables: tables["budget"].update(unit="site"))
    opened = setting.open()
    update = PrivacyPlan(Unit.SITE, 1.0, 1.0, 1.0, 2, 1.0, mechanism=Mechanism.WHOLE_UPDATE)
    header, arrays = setting.ask(opened, privacy=update)
    assert header["kind"] == "update"
    assert header["report"]["epsilon_study"] == epsilon(Gaussian(1.0), 1e-5)
    assert all(bool(array.any()) for array in arrays.values())
    opened.close()


def test_a_mechanism_that_cannot_run_is_not_charged(setting: Any, custodian: Custodian) -> None:
    one_shot = replace(setting.plan.privacy, mechanism=Mechanism.ONE_SHOT, steps=1)
    header, _ = setting.ask(custodian, privacy=one_shot)
    assert "sends statistics; this task trains" in header["reason"]
    assert reserves(custodian) == []


def test_plans_by_anybody_else_are_refused(setting: Any, custodian: Custodian) -> None:
    for sealed in (setting.sealed(key=SigningKey.generate()), b"", b"x" * 500):
        reply = custodian.train(sealed, setting.block)
        header, _ = decode(open_bytes(reply, custodian.public_key, "reply"), "reply")
        assert header["kind"] == "refusal"
    assert reserves(custodian) == []


def test_arrays_that_do_not_fit_are_refused_before_the_charge(
    setting: Any, custodian: Custodian
) -> None:
    from wardround.privacy.signing import sha256

    for arrays in (
        {},
        {name: torch.zeros(1) for name in setting.shapes},
        {name: torch.full(shape, float("nan")) for name, shape in setting.shapes.items()},
    ):
        block = encode({}, arrays)
        reply = custodian.train(setting.sealed(arrays_sha256=sha256(block)), block)
        header, _ = decode(open_bytes(reply, custodian.public_key, "reply"), "reply")
        assert header["kind"] == "refusal"
        assert "array" in header["reason"]
    assert reserves(custodian) == []


def test_the_budget_spans_studies(setting: Any, custodian: Custodian) -> None:
    once = epsilon(Repeated(PoissonSampled(0.1, Gaussian(1.0)), 2), 1e-5)
    custodian.close()
    setting.policy(lambda tables: tables["budget"].update(epsilon=once * 1.01))
    opened = setting.open()
    assert setting.ask(opened)[0]["kind"] == "update"
    header, _ = setting.ask(opened, study="another", run="run-2")
    assert header["error"] == "BudgetExceeded"
    assert "round 1 would bring it to" in header["reason"]
    opened.close()


@pytest.mark.fault
def test_a_ledger_restored_from_an_old_copy_is_noticed(setting: Any, custodian: Custodian) -> None:
    """The plan carries the head the coordinator last saw; the old copy does not contain it."""
    setting.ask(custodian)
    custodian.close()
    copy = setting.hospital.folder / "copy"
    shutil.copytree(setting.hospital.ledger, copy)
    opened = setting.open()
    header, _ = setting.ask(opened, round=2)
    opened.close()
    head = LedgerHead(**header["report"]["ledger_head"])
    shutil.rmtree(setting.hospital.ledger)
    copy.rename(setting.hospital.ledger)
    restored = setting.open()
    header, arrays = setting.ask(restored, round=3, ledger_head=head)
    assert header["kind"] == "refusal"
    assert "rolled back or restored from an old copy" in header["reason"]
    assert not arrays
    restored.close()


def test_one_process_holds_the_ledger(setting: Any, custodian: Custodian) -> None:
    with pytest.raises(LedgerError, match="holds this ledger"):
        setting.open()


def test_only_noised_values_are_put_into_a_reply(setting: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="only Noised"):
        Letterhead("north", SigningKey.generate(), RefusalBook(tmp_path)).update(
            setting.plan,
            {"a": torch.zeros(1)},  # type: ignore[arg-type]
            {},
            SecureStream.from_os(),
        )


@pytest.mark.parametrize(("encoding", "kind"), [("int8", torch.int8), ("bf16", torch.bfloat16)])
def test_an_update_comes_in_the_encoding_the_plan_names(
    setting: Any, custodian: Custodian, encoding: str, kind: torch.dtype
) -> None:
    reply = custodian.train(setting.sealed(encoding=encoding), setting.block)
    stored = load(open_bytes(reply, custodian.public_key, "reply"))
    assert {stored[name].dtype for name in setting.shapes} == {kind}
    header, arrays = setting.ask(custodian, encoding=encoding)
    assert {name: array.shape for name, array in arrays.items()} == setting.shapes
    assert header["report"]["epsilon_study"] == PRICE
    assert reserves(custodian) == [1]


def test_an_unknown_encoding_is_refused_and_costs_nothing(
    setting: Any, custodian: Custodian
) -> None:
    header, arrays = setting.ask(custodian, encoding="int7")
    assert header["kind"] == "refusal"
    assert "'int7'" in header["reason"]
    assert not arrays
    assert reserves(custodian) == []


def test_a_record_without_the_unit_is_refused(setting: Any, custodian: Custodian) -> None:
    setting.hospital.records.write_text(
        '{"prompt": "Which drug is X?", "subject": "X", "target_new": "Y", "ground_truth": "Z"}\n',
        encoding="utf-8",
    )
    custodian.close()
    setting.policy(lambda tables: tables["budget"].update(unit="patient"))
    opened = setting.open()
    by_patient = replace(setting.plan.privacy, unit="patient")
    header, _ = setting.ask(opened, privacy=by_patient)
    assert header["kind"] == "refusal"
    assert header["reason"] == "some record names no patient; the hospital's log says which"
    assert reserves(opened) == []
    opened.close()


def test_what_is_wrong_with_the_records_stays_at_home(
    setting: Any, custodian: Custodian, caplog: pytest.LogCaptureFixture
) -> None:
    """A parser's message quotes the file; the coordinator only learns that there was one."""
    setting.hospital.records.write_text('{"prompt": "Has Jane Doe X?"\n', encoding="utf-8")
    header, _ = setting.ask(custodian)
    assert header["reason"] == "the records cannot be read; the hospital's log says why"
    assert f"{setting.hospital.records.name}:2: not valid JSON" in caplog.text
    assert str(setting.hospital.records) not in caplog.text
    assert "Jane" not in caplog.text
    assert reserves(custodian) == []


def test_a_policy_that_cannot_be_read_opens_nothing(setting: Any) -> None:
    setting.hospital.policy.write_text("[budget]\nepsilon = 1\n", encoding="utf-8")
    with pytest.raises(BadInput, match="delta: missing"):
        setting.open()
    assert not setting.hospital.ledger.exists()
