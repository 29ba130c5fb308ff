"""Committees by approvals: known ones, and representation by its definition."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wardround.strategies.choice.committees import (
    equal_shares,
    most_approved,
    proportional_approval,
    sequential_phragmen,
    sequential_proportional_approval,
    thiele_score,
    unrepresented,
)

Table = NDArray[np.float64]
PARTIES = np.kron(np.eye(3), np.ones((1, 3)))  # three lists of three candidates
VOTERS = np.array([60.0, 30.0, 10.0])


def test_party_lists_get_what_the_rules_are_known_for() -> None:
    # Brute force over all 84 committees: AV takes all seats for the largest list with 180
    # approvals, PAV scores 60 (1 + 1/2) + 30 = 120 with two seats to one.
    assert most_approved(PARTIES, VOTERS, 3) == (0, 1, 2)
    for rule in (
        proportional_approval,
        sequential_proportional_approval,
        sequential_phragmen,
    ):
        assert rule(PARTIES, VOTERS, 3) == (0, 1, 3)
    assert thiele_score(PARTIES, VOTERS, (0, 1, 3)) == pytest.approx(120)


def test_equal_shares_spends_only_what_supporters_hold() -> None:
    # By hand: everybody holds 3/100. The 60 buy one seat (1.8), keep 0.8; the 30 hold 0.9 only.
    assert equal_shares(PARTIES, VOTERS, 3) == (0,)
    # With 4 seats everybody holds 1/25: the 60 buy two (2.4), the 30 one (1.2), the 10 hold 0.4.
    assert equal_shares(PARTIES, VOTERS, 4) == (0, 1, 3)


def test_a_supporter_pays_no_more_than_they_hold() -> None:
    # Four voters with 1/2 each. All back candidate 0 (price 1/4 a head); then 1/4 each is left:
    # candidate 1 has two backers with 1/2 together, too little; candidate 2 four with 1.
    approvals = np.array([[1, 1, 1], [1, 1, 1], [1, 0, 1], [1, 0, 1]], dtype=np.float64)
    assert equal_shares(approvals, np.ones(4), 2) == (0, 2)


def test_a_large_group_without_anyone_is_found() -> None:
    assert unrepresented(PARTIES, VOTERS, 4, (0, 1, 2, 6)) == (3, 4, 5)
    assert unrepresented(PARTIES, VOTERS, 4, (0, 1, 2, 3)) == ()


def approvals() -> st.SearchStrategy[Table]:
    row = st.lists(st.integers(0, 1), min_size=5, max_size=5)
    return st.lists(row, min_size=1, max_size=9).map(lambda rows: np.array(rows, dtype=np.float64))


@given(approvals(), st.integers(1, 4))
@settings(max_examples=80, deadline=None)
def test_rules_proven_to_represent_do(table: Table, seats: int) -> None:
    # PAV and equal shares give justified representation on every profile (Aziz et al. 2017;
    # Peters and Skowron 2020); most approvals does not (the broken twin is the case above).
    counts = np.ones(len(table))
    for rule in (proportional_approval, equal_shares):
        assert unrepresented(table, counts, seats, rule(table, counts, seats)) == ()


@given(approvals(), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_the_proportional_committee_scores_highest(table: Table, seats: int) -> None:
    counts = np.ones(len(table))

    def by_definition(committee: tuple[int, ...]) -> float:
        seen = [int(row[list(committee)].sum()) for row in table]
        return sum(sum(1 / k for k in range(1, n + 1)) for n in seen)

    highest = max(by_definition(c) for c in combinations(range(5), seats))
    found = proportional_approval(table, counts, seats)
    assert by_definition(found) == pytest.approx(highest)
    assert thiele_score(table, counts, found) == pytest.approx(highest)


def test_sizes_out_of_bounds_are_named() -> None:
    with pytest.raises(ValueError, match=r"seats is 10; it must be in 1\.\.9"):
        most_approved(PARTIES, VOTERS, 10)
    with pytest.raises(ValueError, match="0 and 1"):
        most_approved(PARTIES * 2, VOTERS, 3)
    with pytest.raises(ValueError, match="too many to try"):
        proportional_approval(np.ones((1, 60)), np.ones(1), 20)
