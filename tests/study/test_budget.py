"""What a study costs: foretold exactly, and stopped at the hospital that cannot pay."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from wardround.client.workbench import Workbench
from wardround.privacy.accountant import epsilon
from wardround.privacy.events import Repeated
from wardround.study.config import Study
from wardround.study.local import begin
from wardround.study.publishing import publish
from wardround.study.runner import Stage, execute

Command = Callable[..., Any]


@pytest.mark.slow
def test_a_hospital_out_of_budget_stops_and_the_others_go_on(
    small_study: Path, tmp_path: Path
) -> None:
    """Hospital 2 can pay six rounds of eight: from round 7 on it sends nothing, and says why."""
    text = small_study.read_text(encoding="utf-8").replace("rounds = 2", "rounds = 8")
    small_study.write_text(text, encoding="utf-8")
    study = Study.read(small_study)
    with Workbench() as workbench:
        folder = begin(study, tmp_path / "runs", None, workbench)
        policy = folder.hospital("hospital-2").policy
        tables = tomllib.loads(policy.read_text(encoding="utf-8"))
        one_round = study.privacy_plan(folder.facts.noise_multiplier, 60).event
        six = epsilon(Repeated(one_round, 6), 1e-5)
        assert six < epsilon(Repeated(one_round, 7), 1e-5)
        tables["budget"]["epsilon"] = six
        policy.write_text(tomli_w.dumps(tables), encoding="utf-8")
        outcome = execute(folder, Stage(workbench=workbench))
        publish(folder, outcome, workbench)
    assert len(outcome.records) == 8
    for record in outcome.records:
        first, second = record.answers
        assert first.report is not None
        if record.round <= 6:
            assert second.report is not None
        else:
            assert second.report is None
            assert second.reason.startswith("BudgetExceeded: [budget] epsilon allows")
            assert f"round {record.round} would bring it to" in second.reason
    spent = outcome.last_reports
    assert spent["hospital-2"]["epsilon_study"] == six
    assert spent["hospital-1"]["epsilon_study"] > six
    page = (outcome.folder / "report.html").read_text(encoding="utf-8")
    assert "BudgetExceeded" in page
    replies = outcome.folder / "hospitals" / "hospital-2" / "ledger" / "replies"
    assert len(list(replies.iterdir())) == 6, "nothing was made for rounds 7 and 8"


def test_when_nobody_can_pay_the_report_says_what_each_hospital_said(
    wardround: Command, small_study: Path, tmp_path: Path
) -> None:
    """Both can pay one round of two: the second fails, and its reasons are signed and kept."""
    study = Study.read(small_study)
    policy = small_study.with_name("policy.toml")
    tables = tomllib.loads(policy.read_text(encoding="utf-8"))
    one_round = study.privacy_plan(study.noise_multiplier(), 60).event
    tables["budget"]["epsilon"] = epsilon(one_round, 1e-5)
    policy.write_text(tomli_w.dumps(tables), encoding="utf-8")
    ended = wardround("run", small_study, "--runs", tmp_path / "runs")
    assert ended.code == 3
    assert "round 2: no usable update" in ended.err
    (run,) = (tmp_path / "runs").iterdir()
    document = wardround("report", run, "--json").document()
    assert document["rounds"] == 1
    assert [(r["round"], r["hospital"]) for r in document["refusals"]] == [
        (2, "hospital-1"),
        (2, "hospital-2"),
    ]
    for refusal in document["refusals"]:
        assert refusal["reason"].startswith("BudgetExceeded: [budget] epsilon allows")
    (failure,) = document["failures"]
    assert failure["round"] == 2
    shown = wardround("report", run).out
    assert "round 2: hospital-2 sent nothing: BudgetExceeded" in shown
    assert "failed: round 2: no usable update" in shown
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Rounds that failed" in page
    assert "BudgetExceeded: [budget] epsilon allows" in page


@pytest.mark.slow
def test_the_price_is_what_it_costs(wardround: Command, small_study: Path, tmp_path: Path) -> None:
    """Epsilon to the last bit and bytes within the 25 % that are promised; nothing is left behind.

    Time and memory depend on the machine and are compared by hand; see docs/performance.md.
    """
    text = small_study.read_text(encoding="utf-8").replace("rounds = 2", "rounds = 5")
    small_study.write_text(text, encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    price = wardround("price", small_study, "--json").document()
    assert sorted(tmp_path.rglob("*")) == before
    run = wardround("run", small_study, "--json", "--runs", tmp_path / "runs").document()
    foretold = {row["name"]: row for row in price["hospitals"]}
    for hospital in run["hospitals"]:
        assert foretold[hospital["name"]]["epsilon"] == hospital["epsilon"]
    for direction in ("up", "down"):
        total = sum(row["bytes"][direction] for row in price["hospitals"])
        assert total == pytest.approx(run["bytes"][direction], rel=0.05)
    assert price["minutes"] > 0
    assert price["memory_bytes"] > 0


def test_a_price_tells_what_a_policy_would_say(
    wardround: Command, small_study: Path, tmp_path: Path
) -> None:
    policy = tmp_path / "strict.toml"
    text = (small_study.parent / "policy.toml").read_text(encoding="utf-8")
    policy.write_text(text.replace("epsilon = 8.0", "epsilon = 0.5"), encoding="utf-8")
    ended = wardround("price", small_study, "--policy", policy, "--json")
    assert ended.code == 0, ended.err
    for row in ended.document()["hospitals"]:
        assert not row["allowed"]
        assert "[budget] epsilon allows 0.5" in row["reasons"][0]
    assert wardround("price", small_study, "--json").document()["hospitals"][0]["allowed"]
