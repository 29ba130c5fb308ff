"""A vote from study file to collective pairs, with and without noise, through the command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from wardround.client.tasks.ballots.agenda import Agenda
from wardround.client.tasks.ballots.generated import BallotShape, make_agendas, make_ballots
from wardround.strategies.choice.ballots import Profile
from wardround.strategies.choice.pairwise import margins

EXAMPLE = Path(__file__).parents[2] / "examples" / "collective"


def vote(folder: Path, *changes: tuple[str, str]) -> Path:
    """The example's vote, made small and changed."""
    for name in ("ballots.toml", "ballots-policy.toml"):
        shutil.copy(EXAMPLE / name, folder / name)
    small = (
        ("agendas = 12", "agendas = 2"),
        ("clip_norm = 8.5", "clip_norm = 3.5"),
        ("clinicians_per_hospital = 60", "clinicians_per_hospital = 50"),
    )
    text = (folder / "ballots.toml").read_text()
    for old, new in (*small, *changes):
        assert old in text
        text = text.replace(old, new)
    (folder / "ballots.toml").write_text(text)
    return folder / "ballots.toml"


def decided(wardround: Any, study: Path, *options: str) -> dict[str, Any]:
    ran = wardround("run", study, "--json")
    assert ran.code == 0, ran.err
    run = sorted((study.parent / "runs").glob("collective-*"))[-1]
    found = wardround("decide", run, "--json", *options)
    assert found.code == 0, found.err
    document: dict[str, Any] = found.document()
    return document


def counted(agenda: Agenda, seed: int = 0) -> list[list[float]]:
    """The margins of all four made-up hospitals, counted voter by voter."""
    ballots = [
        (1.0, record.content.tiers)
        for hospital in range(4)
        for record in make_ballots(make_agendas(BallotShape(agendas=2)), 50, hospital, seed)
        if record.content.agenda == agenda.id
    ]
    found: list[list[float]] = margins(Profile.of(len(agenda.candidates), ballots).wins()).tolist()
    return found


def test_without_noise_the_vote_is_what_counting_ballots_says(
    tmp_path: Path, wardround: Any
) -> None:
    study = vote(tmp_path, ("epsilon = 4.0\n", 'mode = "none"\n'))
    document = decided(wardround, study, "--rule", "copeland")
    agendas = make_agendas(BallotShape(agendas=2))
    assert document["sites"] == 4
    for agenda, choice in zip(agendas, document["agendas"], strict=True):
        wins = choice["wins"]
        found = [[wins[i][j] - wins[j][i] for j in range(4)] for i in range(4)]
        for row, exact in zip(found, counted(agenda), strict=True):
            # Sums of at most 200 votes travel as float32 means and come back within 1e-4.
            assert row == pytest.approx(exact, abs=1e-3)
        assert choice["deviation"] == 0
        assert choice["stability"] == 1
        assert choice["collective"]


def test_with_noise_the_deviation_is_declared_and_pairs_are_written(
    tmp_path: Path, wardround: Any
) -> None:
    study = vote(tmp_path, ("epsilon = 4.0\n", "noise_multiplier = 0.9\n"))
    pairs = tmp_path / "pairs.jsonl"
    document = decided(wardround, study, "--pairs", str(pairs))
    # Four sites, each with noise 0.9 * 3.5 on a summed margin: twice that.
    assert document["agendas"][0]["deviation"] == pytest.approx(2 * 0.9 * 3.5)
    lines = [json.loads(line) for line in pairs.read_text().splitlines()]
    assert lines == document["pairs"]
    assert all(line["stability"] >= 0.8 for line in lines)
    assert not document["ballots_shortened"]


def test_a_clip_norm_below_a_full_ballot_is_said(tmp_path: Path, wardround: Any) -> None:
    study = vote(
        tmp_path,
        ("epsilon = 4.0\n", "noise_multiplier = 0.9\n"),
        ("clip_norm = 3.5", "clip_norm = 2"),
    )
    assert decided(wardround, study)["ballots_shortened"]


def test_an_unfirm_choice_gives_no_pairs_and_writes_nothing(tmp_path: Path, wardround: Any) -> None:
    study = vote(tmp_path, ("epsilon = 4.0\n", "noise_multiplier = 60.0\n"))
    # Noise alone would look this firm once in millions of runs; at 0.8 it would once in fifty.
    firm = ("--least-stability", "0.999")
    document = decided(wardround, study, *firm)
    assert not any(choice["collective"] for choice in document["agendas"])
    assert document["pairs"] == []
    run = sorted((tmp_path / "runs").glob("collective-*"))[-1]
    refused = wardround("decide", run, "--pairs", tmp_path / "pairs.jsonl", *firm)
    assert refused.code == 2
    assert "no pair is firm enough" in refused.err
    assert not (tmp_path / "pairs.jsonl").exists()
    unknown = wardround("decide", run, "--rule", "schulz")
    assert unknown.code == 2
    assert "schulze" in unknown.err


@pytest.mark.parametrize(("release", "rule"), [("borda", "borda"), ("approvals", "approval")])
def test_scores_are_released_with_less_noise_and_decide_by_one_rule(
    tmp_path: Path, wardround: Any, release: str, rule: str
) -> None:
    study = vote(
        tmp_path,
        ("epsilon = 4.0\n", 'mode = "none"\n'),
        ("[task.generated]", f'[task]\nrelease = "{release}"\n\n[task.generated]'),
    )
    document = decided(wardround, study)
    assert document["rule"] == rule
    agendas = make_agendas(BallotShape(agendas=2))
    for agenda, choice in zip(agendas, document["agendas"], strict=True):
        ballots = [
            record.content.tiers
            for hospital in range(4)
            for record in make_ballots(agendas, 50, hospital, 0)
            if record.content.agenda == agenda.id
        ]
        exact = [0.0] * 4
        for tiers in ballots:
            for place, tier in enumerate(tiers):
                for candidate in tier:
                    exact[candidate] += 1.5 - place if release == "borda" else float(place == 0)
        centre = sum(exact) / 4
        assert choice["places"] == pytest.approx([score - centre for score in exact], abs=1e-2)
        assert choice["winners"] == [max(range(4), key=lambda i: exact[i])]
        assert choice["collective"]
    run = sorted((tmp_path / "runs").glob("collective-*"))[-1]
    refused = wardround("decide", run, "--rule", "schulze")
    assert refused.code == 2
    assert f"the run released {release}" in refused.err


def test_the_noise_of_scores_is_declared(tmp_path: Path, wardround: Any) -> None:
    study = vote(
        tmp_path,
        ("epsilon = 4.0\n", "noise_multiplier = 0.9\n"),
        ("clip_norm = 3.5", "clip_norm = 2.5"),
        ("[task.generated]", '[task]\nrelease = "borda"\n\n[task.generated]'),
    )
    document = decided(wardround, study)
    # Four sites, noise 0.9 * 2.5 on a score, a difference of two: 2 * sqrt(2) times that.
    assert document["agendas"][0]["deviation"] == pytest.approx(2 * 2**0.5 * 0.9 * 2.5)
    # A full Borda ballot on four candidates has the norm sqrt(5), two agendas sqrt(10).
    assert document["ballots_shortened"]


def test_more_rounds_are_averaged(tmp_path: Path, wardround: Any) -> None:
    study = vote(
        tmp_path, ("epsilon = 4.0\n", "noise_multiplier = 2.0\n"), ("rounds = 1", "rounds = 4")
    )
    # Four sites double the deviation of one, the mean of four looks halves it.
    deviation = decided(wardround, study)["agendas"][0]["deviation"]
    assert deviation == pytest.approx(2.0 * 3.5)
