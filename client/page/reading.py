"""A hospital's books at one moment: accounts, charges, refusals, policy. Reads only.

Epsilon is computed at the policy's delta, once for each state of the ledger. What is wrong with a
file is said by its name, without its folder. Knows nothing of HTML.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wardround.client.refusals import REFUSALS_FILE, Refusal, read_refusals
from wardround.privacy.accountant import epsilon
from wardround.privacy.errors import WardroundError
from wardround.privacy.events import Event, compose
from wardround.privacy.journal import LEDGER_FILE, WITNESS_FILE
from wardround.privacy.ledger_view import LedgerSummary, summarise, witnessed_chain
from wardround.privacy.policy import Policy

DELTA = 1e-5  # where no policy says


@dataclass(frozen=True)
class Charged:
    """One charge of the ledger.

    Attributes:
        time: When, ISO 8601.
        dataset: Data set that paid.
        unit: Who is protected.
        study: Name of the study.
        run: Identifier of the run.
        round: Round number inside the run.
        event: What was done to the data.
        answered: Whether a reply was committed.
    """

    time: str
    dataset: str
    unit: str
    study: str
    run: str
    round: int
    event: Event
    answered: bool


@dataclass(frozen=True)
class Spent:
    """What one data set has cost one unit.

    Attributes:
        dataset: Its name.
        unit: Who is protected.
        epsilon: Over all studies; None where no bound holds.
        delta: What it is computed at.
        budget: The most it may ever cost, where the policy speaks of it.
        rounds: Charges.
        answered: Charges that were answered.
        by_run: Epsilon of each run by itself, as (study, run, epsilon, rounds).
        growth: Epsilon over all studies after each run, as (charges so far, epsilon).
    """

    dataset: str
    unit: str
    epsilon: float | None
    delta: float
    budget: float | None
    rounds: int
    answered: int
    by_run: tuple[tuple[str, str, float | None, int], ...]
    growth: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Books:
    """Everything the pages show.

    Attributes:
        summary: The checked ledger; None when it is not sound.
        accounts: What each data set has cost.
        charges: Every charge, oldest first.
        refusals: Every refusal kept, oldest first.
        policy: The policy; None without one.
        problems: What cannot be relied on.
    """

    summary: LedgerSummary | None
    accounts: tuple[Spent, ...]
    charges: tuple[Charged, ...]
    refusals: tuple[Refusal, ...]
    policy: Policy | None
    problems: tuple[str, ...]


class BooksReader:
    """Reads a ledger's folder and a policy again and again."""

    def __init__(self, ledger: Path, policy: Path | None) -> None:
        self._ledger = ledger
        self._policy = policy
        self._last: tuple[str, Books] | None = None

    def stamp(self) -> str:
        """Changes whenever ``read`` would say something else."""
        files = [self._ledger / name for name in (LEDGER_FILE, WITNESS_FILE, REFUSALS_FILE)]
        return "-".join(map(_stamp, [*files, self._policy] if self._policy else files))

    def read(self) -> Books:
        """The books now."""
        stamp = self.stamp()
        if self._last is None or self._last[0] != stamp:
            self._last = stamp, self._read()
        return self._last[1]

    def _read(self) -> Books:
        problems: list[str] = []
        policy, summary = None, None
        charges: tuple[Charged, ...] = ()
        try:
            policy = Policy.read(self._policy) if self._policy else None
        except WardroundError as error:
            problems.append(self._without_folders(error))
        try:
            chain = witnessed_chain(self._ledger)
            summary, charges = summarise(chain, LEDGER_FILE), _charges(chain.entries)
        except (WardroundError, OSError) as error:
            problems.append(self._without_folders(error))
        return Books(
            summary=summary,
            accounts=_accounts(charges, policy),
            charges=charges,
            refusals=tuple(read_refusals(self._ledger)),
            policy=policy,
            problems=tuple(problems),
        )

    def _without_folders(self, error: Exception) -> str:
        """What an error says, files named without the folders they lie in."""
        said = str(error) if isinstance(error, WardroundError) else "the ledger cannot be read"
        for path in filter(None, (self._ledger, self._policy and self._policy.parent)):
            said = said.replace(f"{path}/", "")
        return said


def _charges(entries: Any) -> tuple[Charged, ...]:
    """The reserve entries of a checked chain, each with whether it was answered."""
    commits = [entry.fields for entry in entries if entry.fields["kind"] == "commit"]
    answered = {(fields["run"], fields["round"]) for fields in commits}
    names = ("time", "dataset", "unit", "study", "run", "round")
    return tuple(
        Charged(
            **{name: entry.fields[name] for name in names},
            event=entry.event,
            answered=(entry.fields["run"], entry.fields["round"]) in answered,
        )
        for entry in entries
        if entry.event is not None
    )


def _accounts(charges: tuple[Charged, ...], policy: Policy | None) -> tuple[Spent, ...]:
    """Charges added up by data set and unit; the policy's own account is there without any."""
    groups: dict[tuple[str, str], list[Charged]] = {}
    if policy is not None:
        groups[(policy.data.name, policy.budget.unit.value)] = []
    for charge in charges:
        groups.setdefault((charge.dataset, charge.unit), []).append(charge)
    return tuple(_account(*name, group, policy) for name, group in groups.items())


def _account(dataset: str, unit: str, charges: list[Charged], policy: Policy | None) -> Spent:
    delta = DELTA if policy is None else policy.budget.delta
    ours = policy is not None and (dataset, unit) == (policy.data.name, policy.budget.unit.value)
    runs: dict[tuple[str, str], list[Event]] = {}
    for charge in charges:
        runs.setdefault((charge.study, charge.run), []).append(charge.event)
    growth, so_far = [(0.0, 0.0)], []
    for events in runs.values():
        so_far += events
        spent = _epsilon(so_far, delta)
        if spent is not None:
            growth.append((float(len(so_far)), spent))
    return Spent(
        dataset=dataset,
        unit=unit,
        epsilon=_epsilon([charge.event for charge in charges], delta),
        delta=delta,
        budget=policy.budget.epsilon if policy is not None and ours else None,
        rounds=len(charges),
        answered=sum(charge.answered for charge in charges),
        by_run=tuple((*name, _epsilon(e, delta), len(e)) for name, e in runs.items()),
        growth=tuple(growth),
    )


def _epsilon(events: list[Event], delta: float) -> float | None:
    found = epsilon(compose(*events), delta)
    return found if math.isfinite(found) else None


def _stamp(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return "0"
    return f"{found.st_mtime_ns:x}.{found.st_size:x}"


def policy_lines(policy: Policy) -> Mapping[str, str]:
    """The policy's rules in words, by table and key; it holds no paths."""
    rules: dict[str, str] = {}
    for table in ("budget", "allow", "data"):
        for key, value in vars(getattr(policy, table)).items():
            many = isinstance(value, tuple)
            rules[f"[{table}] {key}"] = ", ".join(map(str, value)) if many else str(value)
    return rules
