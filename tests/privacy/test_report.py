"""Reports: what a hospital signs, and how anybody finds out that it does not add up."""

from __future__ import annotations

import json
import math

import pytest

from wardround.privacy.accountant import epsilon
from wardround.privacy.chain import LedgerHead
from wardround.privacy.disclosures import THREATS, not_covered
from wardround.privacy.errors import BadMessage, UntrustedPeer
from wardround.privacy.events import Gaussian, PoissonSampled, RandomisedResponse, Repeated, compose
from wardround.privacy.mechanisms import Mode
from wardround.privacy.report import (
    Standing,
    check_report,
    check_reports,
    hospital_report,
    officer_document,
    second_opinions,
    sign_report,
)
from wardround.privacy.signing import SigningKey
from wardround.privacy.units import Unit

STEP = PoissonSampled(0.05, Gaussian(1.0))
BEFORE = Repeated(PoissonSampled(0.02, Gaussian(2.0)), 10)
KEY = SigningKey.generate()


@pytest.fixture
def make_report(make_plan):
    """The signed report of a round; ``changes`` are made before signing."""

    def make(number=1, privacy=None, study=None, **changes):
        study = study or Repeated(STEP, 20 * number)
        standing = Standing(
            hospital="north",
            dataset="ward",
            provenance="private",
            declared_units=200,
            epsilon_budget=8.0,
            delta=1e-5,
            study=study,
            life=compose(BEFORE, study),
            ledger_head=LedgerHead(2 * number, f"{number:064d}"),
        )
        report = hospital_report(make_plan(privacy=privacy, round=number), standing)
        return sign_report(report | changes, KEY)

    return make


def test_a_report_says_what_was_done_and_what_it_cost(make_report):
    report = make_report(2)
    assert report["mechanism"].startswith("Poisson-sampled Gaussian")
    assert report["epsilon_study"] == epsilon(Repeated(STEP, 40), 1e-5)
    assert report["epsilon_life"] == epsilon(compose(BEFORE, Repeated(STEP, 40)), 1e-5)
    for name in ("unit", "adjacency", "clip_norm", "noise_multiplier", "sampling_rate", "steps",
                 "delta", "accountant", "ledger_head", "not_covered", "plan_sha256"):  # fmt: skip
        assert name in report
    check_report(json.loads(json.dumps(report)), KEY.public)


def test_a_round_without_protection_claims_nothing(make_report, make_privacy):
    from wardround.privacy.events import Unprotected

    private = {"mode": Mode.NONE, "noise_multiplier": 0.0}
    report = make_report(privacy=private, study=Unprotected())
    assert (report["mechanism"], report["private"]) == ("none", False)
    assert report["epsilon_study"] is report["epsilon_life"] is None
    check_report(report)
    document = officer_document(report)
    assert "without protection" in document["summary"]
    assert document["nist"][0]["answer"].startswith("no bound")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epsilon_study": 0.5}, "epsilon_study is 0.5; its events give"),
        ({"epsilon_life": None}, "epsilon_life is claimed infinite; its events give"),
        ({"epsilon_life": "low"}, "epsilon_life is low"),
        ({"schema": 9}, "not a privacy report of schema 1"),
        ({"delta": 2.0}, "unreadable privacy report"),
        ({"events_study": {"schema": 1, "kind": "free"}}, "unknown kind"),
        ({"events_life": {"schema": 1, "kind": "composed", "events": []}, "epsilon_life": 0.0},
         "life lacks events of this study"),
    ],
)  # fmt: skip
def test_figures_that_do_not_follow_from_the_events_are_found(make_report, changes, message):
    with pytest.raises(BadMessage, match=message):
        check_report(make_report(**changes))


def test_a_changed_or_foreign_report_is_found(make_report):
    report = make_report()
    with pytest.raises(UntrustedPeer, match="does not verify"):
        check_report(report | {"clip_norm": 99.0})
    with pytest.raises(UntrustedPeer, match="signed with key"):
        check_report(report, SigningKey.generate().public)
    with pytest.raises(BadMessage, match="unreadable"):
        check_report({"schema": 1, "hospital": "north", "round": 1})


def test_the_reports_of_a_sound_run_have_no_problems(make_report):
    reports = [make_report(number) for number in (1, 2, 3)]
    assert check_reports(reports) == []
    assert check_reports(reports, {"north": KEY.public}, recompute=False) == []


def test_reports_that_do_not_continue_each_other_are_found(make_report):
    one, two, three = (make_report(number) for number in (1, 2, 3))
    assert "comes after round 2" in check_reports([two, one])[0]
    shorter = make_report(3, ledger_head={"seq": 2, "sha256": "0" * 64})
    assert "rolled back" in check_reports([one, shorter])[0]
    fewer = make_report(3, study=Repeated(STEP, 5))
    assert "earlier are missing" in check_reports([one, two, fewer])[0]
    stranger = sign_report(three, SigningKey.generate())
    assert "signed with key" in check_reports([one, stranger])[0]
    assert "nobody enrolled" in check_reports([one], {"south": KEY.public})[0]


@pytest.mark.slow
def test_the_officers_document_holds_everything_a_page_needs(make_report):
    document = json.loads(json.dumps(officer_document(make_report())))
    assert document["report"]["hospital"] == "north"
    assert "of 100 that were" in document["summary"]
    assert {row["records"] for row in document["risk"]["persons"]} == {1, 2, 5, 10}
    opinions = document["second_opinions"]
    assert set(opinions) == {"pld", "pld-library", "rdp", "prv"}
    assert opinions["pld"] == pytest.approx(opinions["pld-library"], abs=1e-6)
    assert {point["point"] for point in document["nist"]} >= {
        "Privacy parameters", "Unit of privacy", "Algorithm", "Trust model", "Access to data",
    }  # fmt: skip
    assert {threat["covered"] for threat in document["threats"]} == {True, False}


def test_an_accountant_that_cannot_say_says_why():
    opinions = second_opinions(RandomisedResponse(0.5, 2), 1e-5)
    assert isinstance(opinions["pld"], float)
    assert "cannot account" in opinions["prv"]
    assert math.isfinite(opinions["pld"])


def test_every_unit_names_what_it_leaves_out():
    for unit in Unit:
        assert len(not_covered(unit)) == 3
    assert all(threat.how for threat in THREATS)
