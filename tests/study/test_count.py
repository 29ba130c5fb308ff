"""Ballots that may be seen, counted by rules that need whole ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "collective"
# Schwartz's centre squeeze: by ballots A wins, by duels B (pref_voting 1.18.2).
SQUEEZE = (("ABC", 40), ("CBA", 35), ("BAC", 15), ("BCA", 10))
PARTIES = (((0, 1, 2), 60), ((3, 4, 5), 30), ((6, 7, 8), 10))


def agenda(folder: Path, candidates: str, ballots: list[dict[str, Any]]) -> tuple[Path, Path]:
    """A study file on one agenda, and a file of ballots."""
    for name in ("ballots.toml", "ballots-policy.toml"):
        shutil.copy(EXAMPLE / name, folder / name)
    text = (folder / "ballots.toml").read_text().split("[task")[0]
    listed = json.dumps(list(candidates))
    (folder / "ballots.toml").write_text(
        f'{text}[[task.agenda]]\nid = "a"\ncandidates = {listed}\n'
    )
    lines = [
        {"agenda": "a", "clinician": f"k{number}", **ballot}
        for number, ballot in enumerate(ballots)
    ]
    (folder / "all.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "ballots.toml", folder / "all.jsonl"


def test_rules_on_whole_ballots_differ_from_those_on_duels(tmp_path: Path, wardround: Any) -> None:
    ballots = [
        {"ranking": ["ABC".index(c) for c in order]} for order, n in SQUEEZE for _ in range(n)
    ]
    study, cast = agenda(tmp_path, "ABC", ballots)
    for rule, winner in (("plurality", "A"), ("instant-runoff", "A"), ("schulze", "B")):
        found = wardround("count", study, "--ballots", cast, "--rule", rule, "--json")
        assert found.code == 0, found.err
        document = found.document()
        assert document["agendas"][0]["winners"] == [winner]
        assert document["private"] is False


def test_committees_of_party_lists(tmp_path: Path, wardround: Any) -> None:
    # Known: the largest party takes all by approvals, two to one by the proportional rule.
    ballots = [{"approve": list(party)} for party, size in PARTIES for _ in range(size)]
    study, cast = agenda(tmp_path, "ABCDEFGHI", ballots)
    for rule, elected in (
        ("most-approved", "ABC"),
        ("proportional-approval", "ABD"),
        ("sequential-phragmen", "ABD"),
    ):
        command = ("count", study, "--ballots", cast, "--rule", rule, "--seats", 3, "--json")
        found = wardround(*command)
        assert found.code == 0, found.err
        assert "".join(found.document()["agendas"][0]["winners"]) == elected


@pytest.mark.parametrize(
    ("rule", "seats", "what"),
    [
        ("pluralty", 1, "plurality"),
        ("plurality", 2, "has one winner"),
        ("equal-shares", 9, "seats is 9"),
    ],
)
def test_what_cannot_be_counted_is_named(
    tmp_path: Path, wardround: Any, rule: str, seats: int, what: str
) -> None:
    study, cast = agenda(tmp_path, "ABC", [{"ranking": [0, 1, 2]}])
    refused = wardround("count", study, "--ballots", cast, "--rule", rule, "--seats", seats)
    assert refused.code == 2
    assert what in refused.err
