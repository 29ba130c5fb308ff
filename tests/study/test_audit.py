"""The audit of a whole study, through the custodian and everything behind it."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from wardround.client.workbench import Workbench
from wardround.privacy.accountant import epsilon
from wardround.privacy.errors import BadInput
from wardround.privacy.events import Gaussian, PoissonSampled, Repeated
from wardround.privacy.stream import SecureStream
from wardround.study.attacks import attack_study
from wardround.study.audit import AuditSetup, audit_run, audit_study, stepwise
from wardround.study.canaries import plant
from wardround.study.config import Study

Command = Callable[..., Any]
RATE, NOISE, STEPS = 0.5, 4.0, 4
SETUP = AuditSetup(canaries=60, ordinary=20, seed=7)


@pytest.fixture
def noisy_study(small_study: Path) -> Path:
    """The small study with more noise and more corrections: most other records are known facts.

    What a base knows already has hardly any gradient and makes a poor canary. With 60 canaries, 19
    right guesses of 20 prove an epsilon of 1.29; the claim is 1.04.
    """
    text = small_study.read_text(encoding="utf-8")
    assert "noise_multiplier = 1.0 " in text
    text = text.replace("noise_multiplier = 1.0 ", f"noise_multiplier = {NOISE} ")
    text = text.replace("sampling_rate = 0.1", f"sampling_rate = {RATE}")
    assert "single = 1\n" in text
    assert f"sampling_rate = {RATE}" in text
    small_study.write_text(text.replace("single = 1\n", "single = 25\n"), encoding="utf-8")
    return small_study


@pytest.fixture
def repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise and samples from a counter, so that a test passes always or never."""
    counter = itertools.count()

    def key(_: int) -> bytes:
        return hashlib.sha256(f"audit/{next(counter)}".encode()).digest()

    monkeypatch.setattr("wardround.privacy.stream.secrets.token_bytes", key)


@pytest.mark.slow
@pytest.mark.usefixtures("repeatable")
def test_a_correct_study_survives_and_a_bare_one_is_seen_through(noisy_study: Path) -> None:
    document = audit_study(noisy_study, SETUP)
    private, bare = document["with_privacy"], document["without_privacy"]
    # The claim is the hospital's own; the oracle is the accountant on what must have happened.
    assert document["steps"] == STEPS  # the first n with 0.5^n < 0.1
    claim = epsilon(Repeated(PoissonSampled(RATE, Gaussian(NOISE)), STEPS), 1e-5)
    assert private["epsilon_claimed"] == pytest.approx(claim)
    assert document["holds"]
    assert private["epsilon_at_least"] <= claim
    assert bare["epsilon_claimed"] is None
    assert bare["epsilon_at_least"] > claim
    # In 4 steps a canary that is there is sampled with probability 0.94; no other can score.
    assert bare["area_under_curve"] > 0.85
    assert "made-up" in document["scope"]


@pytest.mark.slow
@pytest.mark.usefixtures("repeatable")
@pytest.mark.parametrize("factor", [0.0, 0.1], ids=["clipping-alone", "a-tenth-of-the-noise"])
def test_a_custodian_that_adds_less_noise_than_it_reports_is_caught(
    noisy_study: Path, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    """Broken twins of the noise source; ledger, plan and report go on claiming all of it."""
    honest = SecureStream.normal

    def normal(self: SecureStream, shape: Any) -> Tensor:
        return honest(self, shape) * factor

    monkeypatch.setattr(SecureStream, "normal", normal)
    study = Study.read(noisy_study)
    with Workbench() as workbench:
        planted = plant(study, 60, 20, workbench, torch.Generator().manual_seed(7))
        found = audit_run(stepwise(study, SETUP), SETUP, planted, workbench)
    assert found.claimed == pytest.approx(1.0433, abs=1e-3)
    assert found.at_least > found.claimed
    assert not found.holds


@pytest.mark.slow
def test_canaries_are_other_records_than_the_ordinary_and_do_not_depend_on_coins(
    noisy_study: Path,
) -> None:
    study = Study.read(noisy_study)
    with Workbench() as workbench:
        one, two = (
            plant(study, 60, 20, workbench, torch.Generator().manual_seed(9)) for _ in range(2)
        )
    contents = [[record.content for record in unit] for unit in one.possible]
    assert len(contents) == 80
    assert all(left != right for i, left in enumerate(contents) for right in contents[:i])
    assert one.canaries == two.canaries
    assert torch.equal(one.coins, two.coins)
    assert len(one.present) == 20 + int(one.coins.sum())
    assert 10 < int(one.coins.sum()) < 50  # Binomial(60, 1/2): outside with a chance of 2e-7


def test_steps_follow_the_sampling_rate() -> None:
    assert [SETUP.steps_at(q) for q in (1.0, 0.5, 0.1, 0.001)] == [2, 4, 22, 60]
    assert AuditSetup(steps=7).steps_at(0.1) == 7


def test_too_many_canaries_for_the_task_are_refused(noisy_study: Path) -> None:
    study = Study.read(noisy_study)
    known = {"corroborated": 0, "weak": 0, "single": 0, "filler_facts": 3}
    shape = study.task["generated"] | known
    poor = replace(study, task={**study.task, "generated": shape})
    with Workbench() as workbench, pytest.raises(BadInput, match="--canaries is 200;"):
        plant(poor, 200, 5, workbench, torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["canaries", "ordinary", "steps"])
def test_an_audit_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match=name):
        AuditSetup(**{name: 0})


@pytest.mark.slow
def test_the_command_prints_one_document_or_a_table(wardround: Command, noisy_study: Path) -> None:
    ended = wardround("audit", noisy_study, "--json", "--canaries", 12, "--seed", 3)
    assert ended.code == 0, ended.err
    document = ended.document()
    assert document["canaries"] == 12
    assert document["seed"] == 3
    bare = re.sub(r"noise_multiplier = 4.0.*", 'mode = "none"', noisy_study.read_text("utf-8"))
    noisy_study.write_text(bare, encoding="utf-8")
    ended = wardround("audit", noisy_study, "--canaries", 12)
    assert ended.code == 0, ended.err
    assert "NOT PRIVATE" in ended.out
    assert "with privacy" not in ended.out
    assert "made-up records only" in " ".join(ended.out.split())


def test_a_claim_proved_wrong_ends_with_code_3(
    wardround: Command, noisy_study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {
        "epsilon_claimed": 1.0,
        "epsilon_at_least": 2.0,
        "right": 9,
        "right_share_interval": [0.7, 1.0],
        "area_under_curve": 0.9,
        "holds": False,
    }
    document = {
        "with_privacy": found,
        "without_privacy": found | {"epsilon_claimed": None},
        "holds": False,
        "guesses": 9,
        "canaries": 27,
        "steps": 4,
        "steps_of_study": 8,
        "delta": 1e-5,
        "confidence": 0.95,
        "scope": "made-up",
    }
    monkeypatch.setattr("wardround.study.audit.audit_study", lambda *_: document)
    ended = wardround("audit", noisy_study)
    assert ended.code == 3
    assert "THE CLAIM IS WRONG" in ended.out
    assert json.loads(wardround("audit", noisy_study, "--json").out)["holds"] is False


@pytest.mark.slow
def test_attacks_with_and_without_the_study_s_privacy(
    wardround: Command, noisy_study: Path
) -> None:
    ended = wardround("audit", noisy_study, "--attacks", "--json", "--seed", 1)
    assert ended.code == 0, ended.err
    document = ended.document()
    # 2 rounds of 2 steps; the oracle is the accountant.
    spent = epsilon(Repeated(PoissonSampled(RATE, Gaussian(NOISE)), 4), 1e-5)
    assert document["epsilon"] == pytest.approx(spent)
    rows = {(row["attack"], row["protection"]): row for row in document["attacks"]}
    protections = list(dict.fromkeys(protection for _, protection in rows))
    assert protections == ["nothing", "clipping alone", f"ε {spent:.2f}, this study"]
    for attack in {attack for attack, _ in rows}:
        bare, clipped, private = (rows[attack, protection] for protection in protections)
        assert bare["figure"] > private["limit"], attack
        if "16×" not in attack:  # as a group, sixteen copies are hardly protected at all
            assert clipped["figure"] > private["limit"], attack
        assert private["figure"] <= private["limit"] + 3 * private["standard_error"], attack
        assert private["luck"] <= private["limit"] < bare["limit"], attack


def test_attacks_on_a_bare_study_have_nothing_to_compare_with(noisy_study: Path) -> None:
    text = re.sub(r"noise_multiplier = 4.0.*", 'mode = "none"', noisy_study.read_text("utf-8"))
    noisy_study.write_text(text, encoding="utf-8")
    document = attack_study(noisy_study, None)
    assert document["epsilon"] is None
    assert {row["protection"] for row in document["attacks"]} == {"nothing", "clipping alone"}
    assert all(math.isfinite(row["figure"]) for row in document["attacks"])
