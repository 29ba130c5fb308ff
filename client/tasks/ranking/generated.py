"""A study from the generated ward: questions with their lists for hospitals, public probes.

A hospital's question is asked about one note of a patient's chart, and its list is that whole
chart: notes about all pairs of a few findings, so that most of the list is about something near.
Probes have the fair pool: the answer, notes that share exactly one finding with it, a few that BM25
likes best, the rest at random. A pure function of shape, world and seed; knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import combinations

from wardround.client.tasks.base import Record
from wardround.client.tasks.draws import Draws
from wardround.client.tasks.ranking.first_stage import FirstStage
from wardround.client.tasks.ranking.records import Candidate, RankingQuery, ranking_record
from wardround.client.tasks.ranking.world import Note, RankingWorld


@dataclass(frozen=True)
class WardShape:
    """How large a generated study is.

    Attributes:
        records_per_hospital: Questions, the same public number for all.
        questions_per_patient: How many of them are asked of one chart.
        chart_findings: Findings of a patient; a chart has a note about each two of them.
        probes: Public questions to evaluate on.
        pool: Candidates of a probe.
        pool_near: Of those, notes that share exactly one finding with the answer.
        pool_first_stage: Of those, the ones BM25 likes best.
    """

    records_per_hospital: int = 400
    questions_per_patient: int = 2
    chart_findings: int = 4
    probes: int = 200
    pool: int = 20
    pool_near: int = 8
    pool_first_stage: int = 5

    def __post_init__(self) -> None:
        for each in fields(self):
            least = {"chart_findings": 3, "pool": 2}.get(each.name, 1)
            if getattr(self, each.name) < least:
                raise ValueError(f"{each.name} is {getattr(self, each.name)}; at least {least}")
        if self.pool_near + self.pool_first_stage >= self.pool:
            raise ValueError(
                f"pool is {self.pool}; it must exceed pool_near plus pool_first_stage, "
                f"{self.pool_near + self.pool_first_stage}"
            )


@dataclass(frozen=True)
class Ward:
    """Records by hospital, the public probes, and what was left out, a sentence each."""

    hospitals: tuple[tuple[Record, ...], ...]
    probes: tuple[Record, ...]
    notes: tuple[str, ...] = ()


def make_ward(
    shape: WardShape, hospitals: int, seed: int, world: RankingWorld | None = None
) -> Ward:
    """Records for every hospital and public probes; equal arguments give equal wards.

    Args:
        shape: How large it is.
        hospitals: How many there are.
        seed: Which charts and questions.
        world: Whose words; the default is the world whose public half the embedded base knows.
    """
    world = world or RankingWorld()
    return Ward(
        tuple(
            _hospital(shape, world, f"h{number + 1}", Draws(seed, f"ranking/hospital-{number}"))
            for number in range(hospitals)
        ),
        _probes(shape, world, Draws(seed, "ranking/probes")),
    )


def _hospital(shape: WardShape, world: RankingWorld, name: str, draws: Draws) -> tuple[Record, ...]:
    """A hospital's questions, each with its patient's whole chart as its list."""
    records: list[Record] = []
    while len(records) < shape.records_per_hospital:
        patient = f"{name}-p{len(records) // shape.questions_per_patient:05d}"
        findings = sorted(draws.sample(range(world.findings), shape.chart_findings))
        chart = [world.note(pair, draws) for pair in combinations(findings, 2)]
        for asked in draws.sample(range(len(chart)), min(shape.questions_per_patient, len(chart))):
            candidates = tuple(
                Candidate(f"{patient}-n{place}", note.text, int(place == asked), None, patient)
                for place, note in enumerate(chart)
            )
            text = world.question(chart[asked].findings, draws, public=False)
            query = RankingQuery(text, candidates)
            records.append(ranking_record(f"{name}-q{len(records):05d}", query, patient))
    return tuple(records[: shape.records_per_hospital])


def _probes(shape: WardShape, world: RankingWorld, draws: Draws) -> tuple[Record, ...]:
    """Questions over one public collection that has one note for every two findings."""
    notes = {f"n{place:05d}": world.note(pair, draws) for place, pair in enumerate(world.pairs)}
    index = FirstStage((name, note.text) for name, note in notes.items())
    records = []
    for number in range(shape.probes):
        answer = draws.choice(list(notes))
        text = world.question(notes[answer].findings, draws, public=False)
        about = set(notes[answer].findings)
        near = [n for n, note in notes.items() if len(about & set(note.findings)) == 1]
        pool = [answer, *draws.sample(near, min(shape.pool_near, len(near)))]
        pool += [name for name, _ in index.retrieve(text, shape.pool_first_stage)]
        rest = draws.sample(list(notes), min(len(notes), 2 * shape.pool))
        pool = list(dict.fromkeys([*pool, *rest]))[: shape.pool]
        query = RankingQuery(text, _judged(draws.shuffled(pool), answer, index, text, notes))
        records.append(ranking_record(f"probe-{number:05d}", query))
    return tuple(records)


def _judged(
    pool: Sequence[str], answer: str, index: FirstStage, text: str, notes: dict[str, Note]
) -> tuple[Candidate, ...]:
    """A pool with its grades and first-stage scores."""
    scores = index.scores(text, pool)
    return tuple(
        Candidate(name, notes[name].text, int(name == answer), score)
        for name, score in zip(pool, scores, strict=True)
    )
