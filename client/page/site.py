"""A hospital's site: one page with its books, and its public figures for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from wardround.client.page.pages import books_page
from wardround.client.page.reading import Books, BooksReader
from wardround.web.site import File, Page


class HospitalSite:
    """One hospital's ledger and policy."""

    def __init__(self, ledger: Path, policy: Path | None) -> None:
        self.name = "Wardround hospital"
        self._reader = BooksReader(ledger, policy)

    def stamp(self) -> str:
        """Changes when something was charged, answered or refused, or the policy was edited."""
        return self._reader.stamp()

    def find(self, path: str) -> Page | File | None:
        """The one page there is."""
        return books_page(self._reader.read()) if path == "" else None

    def figures(self) -> Iterable[Metric]:
        """What the hospital declares anyway: epsilon, budget, counts of charges and refusals."""
        return _figures(self._reader.read())


def _figures(books: Books) -> Iterator[Metric]:
    labels = ("dataset", "unit")
    spent = GaugeMetricFamily(
        "wardround_ledger_epsilon_spent", "Epsilon over all studies.", labels=labels
    )
    budget = GaugeMetricFamily(
        "wardround_ledger_epsilon_budget", "The most it may ever be.", labels=labels
    )
    rounds = CounterMetricFamily("wardround_ledger_charges", "Rounds charged.", labels=labels)
    answered = CounterMetricFamily("wardround_ledger_answers", "Rounds answered.", labels=labels)
    for account in books.accounts:
        who = (account.dataset, account.unit)
        rounds.add_metric(who, account.rounds)
        answered.add_metric(who, account.answered)
        if account.epsilon is not None:
            spent.add_metric(who, account.epsilon)
        if account.budget is not None:
            budget.add_metric(who, account.budget)
    yield from (spent, budget, rounds, answered)
    yield GaugeMetricFamily(
        "wardround_ledger_sound", "1 when ledger and policy pass every check.",
        value=float(books.summary is not None and not books.problems),
    )  # fmt: skip
    yield GaugeMetricFamily(
        "wardround_ledger_entries", "Entries of the ledger.",
        value=float(books.summary.entries if books.summary else 0),
    )  # fmt: skip
    yield GaugeMetricFamily(
        "wardround_refusals_kept", "Refusals the hospital still remembers.",
        value=float(len(books.refusals)),
    )  # fmt: skip
