"""Sites, axioms on a profile, stability under noise, and the pairs that come out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from wardround.strategies.choice import axioms
from wardround.strategies.choice.axioms import Finding, examine
from wardround.strategies.choice.ballots import Profile, combine
from wardround.strategies.choice.collective import (
    ChoiceSettings,
    CollectiveChoice,
    decide,
    preference_pairs,
)
from wardround.strategies.choice.pairwise import margins
from wardround.strategies.choice.rules import DUEL_RULES, winners
from wardround.strategies.choice.sites import Site, Weighting, add_up, unanimous
from wardround.strategies.choice.stability import add_margin_noise, pair_stability, stability

Spelled = Callable[[str], Profile]
TEXTS = ("Memphis", "Nashville", "Knoxville", "Chattanooga")


def site(name: str, profile: Profile, deviation: float = 0.0) -> Site:
    return Site(name, profile.wins(), profile.voters, deviation)


def found(findings: tuple[Finding, ...], axiom: str) -> Finding:
    return next(finding for finding in findings if finding.axiom == axiom)


def choice_of(profile: Profile, deviation: float, rule: str = "copeland") -> CollectiveChoice:
    one = site("north", profile, deviation)
    generator = torch.Generator().manual_seed(3)
    return decide("capital", TEXTS, [one], ChoiceSettings(rule=rule), generator)


def test_weightings_elect_different_winners(spelled: Spelled) -> None:
    # By hand: A leads by 100 voters to 2 * 40; by sites two to one for B; by roots 10 to 2 * 6.3.
    sites = [
        site("large", spelled("100 AB")),
        site("east", spelled("40 BA")),
        site("west", spelled("40 BA")),
    ]
    elected = {kind: winners("borda", add_up(sites, kind)[0]) for kind in Weighting}
    assert elected == {
        Weighting.VOTER: (0,),
        Weighting.SITE: (1,),
        Weighting.SQUARE_ROOT: (1,),
    }


def test_the_noise_of_weighted_sites_adds_up_in_squares(spelled: Spelled) -> None:
    sites = [site("a", spelled("4 AB"), 3.0), site("b", spelled("16 AB"), 4.0)]
    assert add_up(sites, Weighting.VOTER)[1] == pytest.approx(5.0)
    assert add_up(sites, Weighting.SITE)[1] == pytest.approx(math.hypot(3 / 4, 4 / 16))


def test_a_unanimous_report_is_what_its_voters_would_send() -> None:
    profile = Profile.of(3, [(7, [[2], [0], [1]])])
    assert unanimous([2, 0, 1], 7).tolist() == profile.wins().tolist()


def test_sites_add_up_to_the_combined_profile(drawn: Callable[..., Profile]) -> None:
    parts = [drawn(4, 9, seed) for seed in range(3)]
    wins, _ = add_up([site(str(i), part) for i, part in enumerate(parts)], Weighting.VOTER)
    assert wins.tolist() == combine(parts).wins().tolist()


def test_bordas_faults_show_on_the_profile_that_is_known_for_them(spelled: Spelled) -> None:
    # The clone spoiler: A beats everybody, Borda elects B, and striking out B's clone C elects A.
    findings = examine(
        "borda", [site("all", spelled("3 ABC, 2 BCA"))], Weighting.VOTER, [frozenset({1, 2})]
    )
    assert found(findings, "condorcet winner").violated
    assert found(findings, "clones").violated
    sound = examine(
        "split-cycle", [site("all", spelled("3 ABC, 2 BCA"))], Weighting.VOTER, [frozenset({1, 2})]
    )
    assert not any(finding.violated for finding in sound if finding.axiom != "manipulation")


def test_two_sites_that_agree_alone_may_disagree_together(spelled: Spelled) -> None:
    # Young (1975): every rule that elects majority winners fails this somewhere. Duels by hand: A
    # wins both sites; together A-B is 6-4, A-C 5-5 and B-C 5-5, so nobody beats C.
    sites = [site("north", spelled("2 ACB, 1 CBA")), site("south", spelled("3 ABC, 2 BCA, 2 CAB"))]
    assert [winners("schulze", one.wins) for one in sites] == [(0,), (0,)]
    assert winners("schulze", add_up(sites, Weighting.VOTER)[0]) == (0, 2)
    assert found(examine("schulze", sites, Weighting.VOTER), "reinforcement").violated
    assert not found(examine("borda", sites, Weighting.VOTER), "reinforcement").violated


def test_lifting_a_winner_never_hurts_it_under_a_monotone_rule(
    spelled: Spelled, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = [site("a", spelled("3 ABC, 2 BCA")), site("b", spelled("2 CAB, 2 BAC"))]
    for rule in ("borda", "schulze", "split-cycle", "copeland", "minimax"):
        assert not found(examine(rule, sites, Weighting.VOTER), "monotonicity").violated
    # The broken twin elects whoever wins least: the check must see that lifting hurts.
    monkeypatch.setattr(axioms, "winners", lambda rule, wins: (int(wins.sum(axis=1).argmin()),))
    assert found(examine("worst", sites, Weighting.VOTER), "monotonicity").violated


def test_findings_need_margins_only(spelled: Spelled) -> None:
    # What a hospital releases is margins: half of them as wins says the same to every check.
    sites = [site("a", spelled("3 ABC, 2 BCA")), site("b", spelled("2 CAB, 2 BAC"))]
    halves = [replace(one, wins=margins(one.wins) / 2) for one in sites]
    for rule in DUEL_RULES:
        clones = [frozenset({1, 2})]
        whole = examine(rule, sites, Weighting.VOTER, clones)
        assert examine(rule, halves, Weighting.VOTER, clones) == whole


def test_a_candidate_all_rank_below_another_may_not_win(
    spelled: Spelled, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = [site("a", spelled("3 ABC")), site("b", spelled("2 CAB"))]
    assert not found(examine("borda", sites, Weighting.VOTER), "pareto").violated
    monkeypatch.setattr(axioms, "winners", lambda rule, wins: (1,))  # everybody prefers A to B
    assert found(examine("worst", sites, Weighting.VOTER), "pareto").violated


def test_a_site_that_gains_by_lying_is_named(spelled: Spelled) -> None:
    # By hand: 4 ABC, 3 BAC gives B nine Borda points to A's ten; the second site burying A below
    # C (BCA) costs A three points, so B wins.
    sites = [site("honest", spelled("4 ABC")), site("tempted", spelled("3 BAC"))]
    assert winners("borda", add_up(sites, Weighting.VOTER)[0]) == (0,)
    finding = found(examine("borda", sites, Weighting.VOTER), "manipulation")
    assert finding.violated
    assert "tempted" in finding.detail
    assert "honest" not in finding.detail


def test_dropping_a_site_is_reported(spelled: Spelled) -> None:
    sites = [site("north", spelled("5 AB")), site("south", spelled("3 BA"))]
    finding = found(examine("borda", sites, Weighting.VOTER), "participation")
    assert not finding.violated
    assert "winner changes without: ['north']" in finding.detail


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("deviation", "share"), [(5, 0.9995), (10, 0.952), (20, 0.732), (40, 0.424), (80, 0.258)]
)
def test_tennessees_capital_under_noise(tennessee: Profile, deviation: float, share: float) -> None:
    # Shares published for 2,000 draws of an independent implementation. Both counts vary by at
    # most 0.011 (one standard deviation), their difference by 0.016: 3.5 points are 2.2 of those,
    # and five cases alarm falsely with probability below 0.1; the seed is fixed.
    wins = tennessee.wins()
    generator = torch.Generator().manual_seed(20)
    firm = stability("copeland", wins, deviation, 2000, generator)
    assert firm == pytest.approx(share, abs=0.03)


def test_noise_keeps_margins_antisymmetric(tennessee: Profile) -> None:
    noised = add_margin_noise(tennessee.wins(), 7.0, torch.Generator().manual_seed(0))
    assert margins(noised) == pytest.approx(-margins(noised).T)
    assert np.diag(margins(noised)).tolist() == [0, 0, 0, 0]


def test_pairs_are_as_firm_as_the_normal_distribution_says(tennessee: Profile) -> None:
    # Nashville beats Memphis by 16: with deviation 16 it stays so with probability Phi(1).
    assert pair_stability(tennessee.wins(), 16.0)[1, 0] == pytest.approx(0.841344746, abs=1e-9)
    assert pair_stability(tennessee.wins(), 0.0)[1, 0] == 1.0


def test_an_unstable_winner_is_not_called_collective(tennessee: Profile) -> None:
    firm, shaky = choice_of(tennessee, 5.0), choice_of(tennessee, 40.0)
    assert firm.winners == (1,)
    assert firm.collective
    assert not shaky.collective
    assert preference_pairs(shaky, "Where?", ChoiceSettings(rule="copeland"), 1) == []


def test_pairs_follow_the_collective_ranking_the_clearest_first(tennessee: Profile) -> None:
    settings = ChoiceSettings(rule="copeland", most_pairs=4)
    pairs = preference_pairs(choice_of(tennessee, 5.0), "Where?", settings, 1)
    # Margins by hand from the duels: C over K 66, N over C 36, N over K 36, then 16 over Memphis.
    assert [(p["chosen"], p["rejected"], p["margin"]) for p in pairs] == [
        ("Chattanooga", "Knoxville", 66),
        ("Nashville", "Knoxville", 36),
        ("Nashville", "Chattanooga", 36),
        ("Nashville", "Memphis", 16),
    ]
    assert all(pair["stability"] >= 0.8 for pair in pairs)
    few = replace(settings, most_pairs=1)
    assert len(preference_pairs(choice_of(tennessee, 5.0), "Where?", few, 1)) == 1


def test_every_rule_and_weighting_is_reported(tennessee: Profile) -> None:
    choice = choice_of(tennessee, 0.0)
    assert set(choice.other_rules) == set(DUEL_RULES) - {"copeland"}
    assert set(choice.other_weightings) == {"voter", "site", "square-root"}
    assert choice.to_json()["lottery"] == pytest.approx([0, 1, 0, 0], abs=1e-9)


def test_settings_and_sites_out_of_bounds_are_named(tennessee: Profile) -> None:
    with pytest.raises(ValueError, match=r"least_stability is 1\.5"):
        ChoiceSettings(least_stability=1.5)
    with pytest.raises(ValueError, match="instant-runoff"):
        ChoiceSettings(rule="instant-runoff")
    with pytest.raises(ValueError, match="voters is 0"):
        Site("north", tennessee.wins(), 0)
    twice = [site("north", tennessee), site("north", tennessee)]
    with pytest.raises(ValueError, match="once"):
        decide("capital", TEXTS, twice, ChoiceSettings(), torch.Generator())
