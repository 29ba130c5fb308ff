"""Plans on the wire, and what a hospital's policy makes of them."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from wardround.privacy.accountant import Accountant, epsilon
from wardround.privacy.errors import BadInput, BadMessage, BudgetExceeded, PolicyRefused
from wardround.privacy.events import NOTHING, Gaussian, PoissonSampled, Repeated
from wardround.privacy.mechanisms import Mechanism, Mode
from wardround.privacy.plan import plan_from_json
from wardround.privacy.policy import Policy
from wardround.privacy.signing import canonical
from wardround.privacy.units import Unit

POLICY = """
[budget]
epsilon = {epsilon}
delta = {delta}
unit = "record"

[allow]
tasks = ["editing"]
bases = ["{base}"]
strategies = ["fedavg"]
min_noise_multiplier = 0.8
max_rounds = 20
min_units = 100
{allow}

[data]
name = "ward"
declared_units = {units}
provenance = "{provenance}"
"""


@pytest.fixture
def policy(tmp_path):
    """A policy that allows the plans of ``make_plan``; keyword arguments change the file."""

    def read(**changes):
        fields = {
            "epsilon": 3.0, "delta": 1e-5, "base": "b" * 64, "allow": "", "units": 200,
            "provenance": "private",
        }  # fmt: skip
        path = tmp_path / "policy.toml"
        path.write_text(POLICY.format(**fields | changes), encoding="utf-8")
        return Policy.read(path)

    return read


# --- plans --------------------------------------------------------------------------------------


def test_a_plan_comes_back_from_the_wire_with_the_same_hash(make_plan):
    plan = make_plan(adapter={"rank": 4}, training={"learning_rate": 0.1})
    again = plan_from_json(json.loads(plan.to_bytes()))
    assert again == plan
    assert again.sha256 == plan.sha256
    assert make_plan(ledger_head=None).sha256 != plan.sha256
    assert plan.to_bytes() == canonical(asdict(plan))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(schema=2), "schema is 2"),
        (lambda d: d.update(round=11), r"round is 11; it must be in 1\.\.10"),
        (lambda d: d.update(rounds=0), "rounds is 0"),
        (lambda d: d.update(free=True), "unknown key 'free'"),
        (lambda d: d.pop("task"), "task: missing"),
        (lambda d: d.update(run="r" * 1025), "length of run is 1025; it must be 1024 at most"),
        (lambda d: d["privacy"].update(sampling_rate=0), "sampling_rate is 0"),
        (lambda d: d["privacy"].update(mechanism="magic"), "expected one of dp-sgd"),
        (lambda d: d["ledger_head"].update(seq=0), "seq is 0"),
    ],
)
def test_a_bad_plan_is_refused_by_field(make_plan, change, message):
    document = json.loads(make_plan().to_bytes())
    change(document)
    with pytest.raises(BadMessage, match=message):
        plan_from_json(document)


# --- policy -------------------------------------------------------------------------------------


def test_an_allowed_plan_says_what_it_will_cost(policy, make_plan):
    plan = make_plan()
    decision = policy().decide(plan, NOTHING)
    assert decision.allowed
    assert decision.epsilon_after == epsilon(plan.privacy.event, 1e-5)
    decision.enforce()


def test_every_reason_is_named_at_once(policy, make_plan):
    plan = make_plan(
        privacy={"noise_multiplier": 0.5, "unit": Unit.PATIENT},
        task="other", strategy="krum", base_sha256="c" * 64, rounds=30,
    )  # fmt: skip
    decision = policy(units=50, delta=0.02).decide(plan, NOTHING)
    text = "; ".join(decision.reasons)
    for part in (
        "tasks does not list 'other'", "bases does not list 'drugs'", "strategies does not list",
        "max_rounds is 20; the plan takes 30", "min_units is 100; 50 are declared",
        "delta is 0.02; with 50 units it must be below 0.02", "unit is record",
        "min_noise_multiplier is 0.8; the plan adds 0.5",
    ):  # fmt: skip
        assert part in text
    with pytest.raises(PolicyRefused) as refusal:
        decision.enforce()
    assert str(refusal.value) == text


def test_the_budget_counts_what_was_spent_before(policy, make_plan):
    plan = make_plan()
    spent = Repeated(PoissonSampled(0.05, Gaussian(1.0)), 60)
    decision = policy().decide(plan, spent, account=Accountant().epsilon)
    assert decision.over_budget
    with pytest.raises(
        BudgetExceeded, match=r"epsilon allows 3 for data set 'ward'; round 1 would"
    ):
        decision.enforce()
    # Work done anew under a charge that is already in ``spent`` costs nothing more.
    assert policy(epsilon=3.1).decide(plan, spent, charged=True).allowed
    assert not policy(epsilon=3.1).decide(plan, spent).allowed


def test_unprotected_work_needs_data_that_are_not_private(policy, make_plan):
    plan = make_plan(privacy={"mode": Mode.NONE, "noise_multiplier": 0.0})
    assert "mode none needs public" in policy().decide(plan, NOTHING).reasons[0]
    for provenance in ("public", "generated"):
        assert policy(provenance=provenance).decide(plan, NOTHING).allowed


def test_the_published_mechanism_runs_only_where_it_is_listed(policy, make_plan):
    paper = {
        "mechanism": Mechanism.RECONSTRUCTION, "noise_multiplier": 20.0, "sampling_rate": 1.0,
        "expected_units": 1.0, "steps": 1,
    }  # fmt: skip
    plan = make_plan(privacy=paper)
    assert policy().decide(plan, NOTHING).reasons == (
        "[allow] mechanisms does not list 'reconstruction'",
    )
    allowed = policy(allow='mechanisms = ["reconstruction"]')
    assert allowed.decide(plan, NOTHING).allowed
    # Its noise is judged by what it is worth: sigma 2 on a record is a multiplier of 0.71.
    weak = make_plan(privacy=paper | {"noise_multiplier": 2.0})
    assert "the plan adds 0.707107" in "; ".join(allowed.decide(weak, NOTHING).reasons)


def test_a_site_needs_no_delta_below_its_own_number(policy, make_plan, tmp_path):
    text = POLICY.format(
        epsilon=9.0, delta=1e-2, base="b" * 64, allow="", units=200, provenance="private"
    ).replace('unit = "record"', 'unit = "site"')
    (tmp_path / "site.toml").write_text(text, encoding="utf-8")
    plan = make_plan(
        privacy={"mechanism": Mechanism.WHOLE_UPDATE, "unit": Unit.SITE, "sampling_rate": 1.0,
                 "expected_units": 1.0, "noise_multiplier": 5.0}
    )  # fmt: skip
    assert Policy.read(tmp_path / "site.toml").decide(plan, NOTHING).allowed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epsilon": 0}, "epsilon is 0"),
        ({"delta": 1.0}, "delta is 1.0"),
        ({"units": 0}, "declared_units is 0"),
        ({"provenance": "stolen"}, "expected one of private, public, generated"),
        ({"allow": "mechanisms = []"}, "mechanisms is empty"),
        ({"allow": "min_unit = 3"}, "unknown key 'min_unit'; did you mean 'min_units'"),
        ({"base": '", "'}, None),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(policy, changes, message):
    if message is None:
        assert len(policy(**changes).allow.bases) == 2
        return
    with pytest.raises(BadInput, match=message):
        policy(**changes)


def test_numbers_that_must_be_positive(tmp_path):
    text = POLICY.format(
        epsilon=3.0, delta=1e-5, base="b", allow="", units=200, provenance="private"
    )
    path = tmp_path / "policy.toml"
    for line in ("min_noise_multiplier = 0.8", "max_rounds = 20", "min_units = 100"):
        name = line.partition(" ")[0]
        path.write_text(text.replace(line, f"{name} = 0"), encoding="utf-8")
        with pytest.raises(BadInput, match=f"{name} is 0"):
            Policy.read(path)
