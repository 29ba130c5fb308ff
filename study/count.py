"""Counts ballots that may be seen, by rules that need whole ballots: no noise, no hospitals.

For votes that are public, or a coordinator whom everybody trusts with them. Knows nothing of
privacy, because nothing here is private any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wardround.client.tasks.ballots.agenda import Agenda, Tiers
from wardround.client.tasks.ballots.formats import read_ballots
from wardround.client.tasks.ballots.task import read_settings
from wardround.privacy.errors import BadInput
from wardround.privacy.tables import nearest
from wardround.strategies.choice import committees
from wardround.strategies.choice.ballots import Floats, Profile
from wardround.strategies.choice.elimination import single_transferable_vote
from wardround.strategies.choice.pairwise import Winners
from wardround.strategies.choice.rules import BALLOT_RULES, DUEL_RULES, winners_of_ballots
from wardround.study.config import Study

TRANSFERABLE = "single-transferable-vote"
_BY_APPROVALS: Mapping[str, Callable[[Floats, Floats, int], Winners]] = {
    "most-approved": committees.most_approved,
    "proportional-approval": committees.proportional_approval,
    "sequential-proportional-approval": committees.sequential_proportional_approval,
    "sequential-phragmen": committees.sequential_phragmen,
    "equal-shares": committees.equal_shares,
}
ONE_WINNER = (*BALLOT_RULES, *DUEL_RULES)
SEVERAL = (TRANSFERABLE, *_BY_APPROVALS)


def count_ballots(study: Study, ballots: Path, rule: str, seats: int) -> dict[str, Any]:
    """Who wins each agenda of a study, from ballots that may be seen.

    Args:
        study: Of the task ``ballots``; says what is voted on.
        ballots: All of them, as the task reads them.
        rule: For one winner or for several seats.
        seats: How many are elected; 1 for rules that have one winner.

    Raises:
        BadInput: Another task, an unknown rule, or seats that it cannot fill.

    Privacy: none. Ballots are read as they are.
    """
    if study.study.task != "ballots":
        raise BadInput(f"{study.path}: task is {study.study.task!r}; ballots are counted")
    if rule not in (*ONE_WINNER, *SEVERAL):
        raise BadInput(f"rule is {rule!r}: no such rule{nearest(rule, [*ONE_WINNER, *SEVERAL])}")
    if seats != 1 and rule in ONE_WINNER:
        raise BadInput(f"seats is {seats}; {rule!r} has one winner, {', '.join(SEVERAL)} several")
    agendas = read_settings(study.task).agendas
    cast: dict[str, list[Tiers]] = {agenda.id: [] for agenda in agendas}
    for record in read_ballots(ballots, {agenda.id: agenda for agenda in agendas}):
        cast[record.content.agenda].append(record.content.tiers)
    try:
        found = [_count(agenda, cast[agenda.id], rule, seats) for agenda in agendas]
    except ValueError as error:
        raise BadInput(f"rule is {rule!r}: {error}") from error
    return {"rule": rule, "seats": seats, "private": False, "agendas": found}


def _count(agenda: Agenda, cast: Sequence[Tiers], rule: str, seats: int) -> dict[str, Any]:
    """One agenda."""
    count, names = len(agenda.candidates), agenda.candidates
    if not cast:
        raise ValueError(f"nobody voted on {agenda.id!r}")
    profile = Profile.of(count, [(1.0, tiers) for tiers in cast])
    approvals = np.array([[float(i in tiers[0]) for i in range(count)] for tiers in cast])
    voters = np.ones(len(cast))
    document: dict[str, Any] = {"agenda": agenda.id, "ballots": len(cast)}
    if rule in _BY_APPROVALS:
        elected = _BY_APPROVALS[rule](approvals, voters, seats)
        left_out = committees.unrepresented(approvals, voters, seats, elected)
        document["unrepresented"] = [names[i] for i in left_out]
    elif rule == TRANSFERABLE:
        elected = single_transferable_vote(profile, seats, range(count))
    else:
        elected = winners_of_ballots(rule, profile)
    return document | {"winners": [names[i] for i in elected]}
