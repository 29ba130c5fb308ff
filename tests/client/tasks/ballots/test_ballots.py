"""Ballots: contributions by hand, their sensitivity, files and evaluation."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.client.statistics import NAME, Statistics, attach_statistics
from wardround.client.tasks.ballots.agenda import (
    Agenda,
    Release,
    ballot_margins,
    contribution,
    longest_ballot,
    margin_matrix,
    places,
)
from wardround.client.tasks.ballots.formats import Ballot, read_ballots, write_ballots
from wardround.client.tasks.ballots.task import BallotsTask
from wardround.client.tasks.base import Record
from wardround.privacy import Unit
from wardround.privacy.errors import BadInput
from wardround.strategies.choice.ballots import Profile
from wardround.strategies.choice.pairwise import margins

DUELS = Release.DUELS
AGENDAS = (Agenda("a", ("Rest", "Tea", "Honey")), Agenda("b", ("Yes", "No")))


def test_a_ballots_duels_by_hand() -> None:
    # Pairs in order (0,1), (0,2), (1,2).
    assert ballot_margins(3, ((0,), (1,), (2,))).tolist() == [1, 1, 1]
    assert ballot_margins(3, ((2,), (0, 1))).tolist() == [0, -1, -1]
    assert ballot_margins(3, ((1,),)).tolist() == [-1, 0, 1]


@given(st.lists(st.permutations(range(4)), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_summed_duels_are_the_profiles_margins(orders: list[list[int]]) -> None:
    # The oracle counts ballots the other way: voters who rank i above j.
    profile = Profile.of(4, [(1, [[place] for place in order]) for order in orders])
    summed = sum(
        (ballot_margins(4, tuple((i,) for i in order)) for order in orders),
        torch.zeros(6, dtype=torch.float64),
    )
    assert margin_matrix(4, summed).tolist() == margins(profile.wins()).tolist()


def test_a_full_ballot_is_as_long_as_the_formula_says() -> None:
    # One clinician more or less moves the margins by sqrt(m (m - 1) / 2) an agenda, jointly over
    # all agendas: sqrt(3 + 1).
    assert longest_ballot(AGENDAS, DUELS) == 2.0
    full = torch.cat([ballot_margins(3, ((0,), (1,), (2,))), ballot_margins(2, ((1,), (0,)))])
    assert float(full.norm()) == 2.0


@given(st.lists(st.lists(st.integers(0, 3), max_size=4, unique=True), max_size=4))
@settings(max_examples=60, deadline=None)
def test_no_ballot_is_longer_than_the_formula(tiers: list[list[int]]) -> None:
    seen: set[int] = set()
    proper = []
    for tier in tiers:
        fresh = tuple(place for place in tier if place not in seen)
        seen.update(fresh)
        if fresh:
            proper.append(fresh)
    moved = float(ballot_margins(4, tuple(proper)).norm())
    assert moved <= math.sqrt(4 * 3 / 2) + 1e-12


def test_borda_scores_and_approvals_by_hand() -> None:
    # Of three: 2 wins less 0 losses, halved, and so on; the bound is sqrt(3 (9 - 1) / 12).
    assert contribution(3, ((2,), (0,), (1,)), Release.BORDA).tolist() == [0, -1, 1]
    assert contribution(3, ((2,), (0, 1)), Release.BORDA).tolist() == [-0.5, -0.5, 1]
    assert contribution(3, ((1, 2), (0,)), Release.APPROVALS).tolist() == [0, 1, 1]
    one = (Agenda("a", ("x", "y", "z", "u")),)
    assert longest_ballot(one, Release.BORDA) == pytest.approx(math.sqrt(5))
    assert longest_ballot(one, Release.APPROVALS) == 2.0


@given(st.permutations(range(5)), st.integers(1, 5), st.data())
@settings(max_examples=80, deadline=None)
def test_no_ballot_moves_a_release_by_more_than_its_formula(
    order: list[int], named: int, data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, named), max_size=named)) | {named})
    tiers = tuple(tuple(order[a:b]) for a, b in zip([0, *cuts], cuts, strict=False) if a < b)
    agenda = Agenda("a", ("v", "w", "x", "y", "z"))
    for release in Release:
        moved = contribution(5, tiers, release)
        assert float(moved.norm()) <= longest_ballot((agenda,), release) + 1e-12
    # The broken twin, scores that are not centred, moves further than the centred bound.
    full = contribution(5, tuple((i,) for i in order), Release.BORDA)
    assert float((full + 2).norm()) > longest_ballot((agenda,), Release.BORDA)


def test_the_gradient_of_a_unit_is_its_contribution_whatever_was_counted_before() -> None:
    trainable = attach_statistics(torch.nn.Module(), 3)
    model = trainable.model
    assert isinstance(model, Statistics)
    rows = torch.tensor([[1.0, -1.0, 0.0], [0.0, 1.0, 1.0]], dtype=torch.float64)
    for start in (0.0, 5.0):
        with torch.no_grad():
            trainable.parameters[NAME].fill_(start)
        for place, loss in enumerate(model(rows)):
            (gradient,) = torch.autograd.grad(loss, [trainable.parameters[NAME]], retain_graph=True)
            assert gradient[0].tolist() == (-rows[place]).tolist()


def test_agendas_share_one_vector() -> None:
    assert places(AGENDAS, DUELS) == {"a": range(3), "b": range(3, 4)}
    assert places(AGENDAS, Release.BORDA) == {"a": range(3), "b": range(3, 5)}
    with pytest.raises(ValueError, match="twice"):
        places((AGENDAS[0], AGENDAS[0]), DUELS)


def write(path: Path, *items: Any) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


BALLOT = {"agenda": "a", "clinician": "k", "ranking": [[2], [0, 1]]}


def test_ballots_survive_a_round_trip(tmp_path: Path) -> None:
    known = {agenda.id: agenda for agenda in AGENDAS}
    path = write(tmp_path / "file.jsonl", BALLOT, {**BALLOT, "agenda": "b", "ranking": [1, 0]})
    records = read_ballots(path, known)
    assert [record.content for record in records] == [
        Ballot("a", ((2,), (0, 1))),
        Ballot("b", ((1,), (0,))),
    ]
    assert all(record.owners[Unit.CLINICIAN] == "k" for record in records)
    write_ballots(records, tmp_path / "again.jsonl")
    assert read_ballots(tmp_path / "again.jsonl", known) == records


@pytest.mark.parametrize(
    ("item", "what"),
    [
        ({**BALLOT, "agenda": "z"}, "not one of the study's 2"),
        ({**BALLOT, "clinician": ""}, "clinician must be a text"),
        ({**BALLOT, "clinician": "m", "ranking": []}, "list of positions"),
        ({**BALLOT, "clinician": "m", "ranking": [0, 0]}, "a candidate twice"),
        ({**BALLOT, "clinician": "m", "ranking": [3]}, r"outside 0\.\.2"),
        ({**BALLOT, "clinician": "m", "ranking": ["Rest"]}, "positions of candidates"),
        ({**BALLOT, "rankng": []}, "ranking"),
        ({**BALLOT, "clinician": "m", "approve": [0]}, "not both"),
        (BALLOT, "has voted on this agenda before"),
    ],
)
def test_mistakes_are_named_by_file_and_line(tmp_path: Path, item: Any, what: str) -> None:
    path = write(tmp_path / "file.jsonl", BALLOT, item)
    with pytest.raises(BadInput, match=what) as caught:
        read_ballots(path, {agenda.id: agenda for agenda in AGENDAS})
    assert f"{path}:2" in str(caught.value)


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"agenda": [{"id": "a", "candidates": ["x"]}]}, "2 to 20 candidates"),
        ({"agenda": [{"id": "a", "candidates": ["x", "x"]}]}, "stands there twice"),
        ({"agenda": [{"id": "a", "candidates": ["x", "y"], "clones": [[0, 2]]}]}, "clones names"),
        ({"generated": {"agendas": 0}}, "agendas is 0"),
    ],
)
def test_agendas_that_cannot_be_voted_on_are_named(config: dict[str, Any], what: str) -> None:
    with pytest.raises(BadInput, match=what):
        BallotsTask().check(config)


def test_evaluation_compares_with_the_ballots_themselves() -> None:
    task, config = BallotsTask(), {"agenda": [{"id": "b", "candidates": ["Yes", "No"]}]}
    records = [
        Record(f"{k}", {Unit.CLINICIAN: f"{k}", Unit.RECORD: f"{k}"}, Ballot("b", order))
        for k, order in enumerate([((0,), (1,)), ((0,), (1,)), ((1,), (0,))])
    ]
    trainable = task.adapt(torch.nn.Module(), None, {}, config, torch.Generator())
    trainable.write({NAME: torch.tensor([[-1.0]])})
    # The exact mean margin is 1/3: the other way round, and off by 4/3.
    assert task.evaluate(trainable.model, None, records, config) == {
        "same_winners": 0.0,
        "margin_error": pytest.approx(4 / 3),
    }
