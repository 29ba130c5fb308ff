"""Ranks every query's candidates with a model and says how good that is, beside the first stage.

Privacy: exact figures and a full ranking of the records given; they stay where the records are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from wardround.client.tasks.base import Metrics, Record
from wardround.client.tasks.ranking.metrics import Run, measure
from wardround.client.tasks.ranking.records import Candidate, RankingQuery

Pairs = Sequence[tuple[str, str]]
FIRST_STAGE = "first_stage."


def rank(records: Sequence[Record], score: Callable[[Pairs], list[float]]) -> Run:
    """Scores by query and passage.

    Args:
        records: Queries with their candidates.
        score: Scores of (passage, query) texts.
    """
    queries: list[tuple[str, RankingQuery]] = [(record.id, record.content) for record in records]
    pairs = [(candidate.text, query.text) for _, query in queries for candidate in query.candidates]
    scores = iter(score(pairs))
    return {
        name: {candidate.id: next(scores) for candidate in query.candidates}
        for name, query in queries
    }


def evaluate_run(records: Sequence[Record], run: Run, measures: Sequence[str]) -> Metrics:
    """Means over the queries that have a relevant passage, for this run and the first stage's.

    The first stage is reported, as ``first_stage.nDCG@10`` and so on, where the records hold its
    scores for every candidate. ``queries`` says how many queries the means rest on.
    """
    judged = [r for r in records if any(grade > 0 for grade in r.content.grades.values())]
    qrels = {r.id: r.content.grades for r in judged}
    found = dict(measure(qrels, run, measures)) if judged else {}
    if judged and all(c.score is not None for r in judged for c in _list(r)):
        first = {r.id: {c.id: c.score for c in _list(r) if c.score is not None} for r in judged}
        found |= {
            FIRST_STAGE + name: value for name, value in measure(qrels, first, measures).items()
        }
    return {**found, "queries": float(len(judged))}


def _list(record: Record) -> tuple[Candidate, ...]:
    """A record's candidates."""
    query: RankingQuery = record.content
    return query.candidates
