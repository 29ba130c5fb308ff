"""A public collection made into lists: some for each hospital to train on, some to evaluate on.

A training list is a query's best passage with negatives, half of them found by the first stage and
half random, as Zhang et al. (2024), TSARankLLM, section 4.1, sample theirs from a first stage's
best. A list to evaluate on is what the first stage finds, and nothing is put into it: relevant
passages that it missed count against the ranking. The collection is read twice, first for the
index, then for the texts that some list needs.

Privacy: every list depends on the whole collection, which must be public to be trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from wardround.client.tasks.base import Record
from wardround.client.tasks.draws import Draws
from wardround.client.tasks.ranking.config import PublicLists
from wardround.client.tasks.ranking.first_stage import Finder, FirstStage, FromRun
from wardround.client.tasks.ranking.formats import read_lists
from wardround.client.tasks.ranking.generated import Ward
from wardround.client.tasks.ranking.public import Collection, Grades
from wardround.client.tasks.ranking.records import Candidate, RankingQuery, ranking_record
from wardround.client.tasks.ranking.trec import read_run
from wardround.privacy.errors import BadInput


@dataclass(frozen=True)
class _Draft:
    """A list whose texts are still in the collection.

    Attributes:
        name: The query's id.
        query: Its text.
        passages: Id, grade and first-stage score.
        missed: Grades of judged passages that are not in the list.
    """

    name: str
    query: str
    passages: tuple[tuple[str, int | None, float | None], ...]
    missed: Mapping[str, int] = field(default_factory=dict)

    def record(self, texts: Mapping[str, str]) -> Record:
        """The record; an empty passage is left out, as nothing can be read in it."""
        candidates = tuple(
            Candidate(name, texts[name], grade, score)
            for name, grade, score in self.passages
            if texts[name]
        )
        return ranking_record(self.name, RankingQuery(self.query, candidates, self.missed))


def deal_public(
    source: Path, hospitals: int, seed: int, lists: PublicLists, max_probes: int
) -> Ward:
    """Lists for each hospital and lists to evaluate on, from a folder or from a file of lists.

    The split called train is dealt out and the held-out one is evaluated on; where only one of the
    two is there, ``lists.probe_share`` percent of its queries become probes.

    Raises:
        BadInput: Something cannot be read, or there are fewer queries than hospitals.
    """
    draws = Draws(seed, "ranking/deal")
    if not source.is_dir():
        records = draws.shuffled(read_lists(source))
        kept = _probe_count(len(records), lists, max_probes)
        return _dealt(records[kept:], records[:kept], hospitals, source, ())
    collection = Collection.open(source)
    split, held_out = collection.splits()
    queries, grades = _answered(collection, split)
    names = draws.shuffled(list(queries))
    find = _Finders(collection)
    if held_out:
        questions, answers = _answered(collection, held_out)
        asked = draws.shuffled(list(questions))[:max_probes]
    else:
        kept = _probe_count(len(names), lists, max_probes)
        questions, answers = queries, grades
        asked, names = names[:kept], names[kept:]
    near = find.of(split)
    training = [_list(n, queries[n], grades[n], near, lists.negatives, draws) for n in names]
    near = find.of(held_out or split)
    probes = [_pool(n, questions[n], answers[n], near, lists.depth) for n in asked]
    found = [draft for draft in probes if draft.passages]
    texts = _texts(collection, [*training, *found])
    return _dealt(
        _records(training, texts),
        _records(found, texts),
        hospitals,
        source,
        _notes(probes, found),
    )


def probes_of(folder: Path, depth: int, most: int) -> list[Record]:
    """Lists to evaluate on: the held-out queries of a collection, with what the first stage finds.

    Privacy: never for training; see the module.
    """
    collection = Collection.open(folder)
    split, held_out = collection.splits()
    chosen = held_out or split
    queries, grades = _answered(collection, chosen)
    near = _Finders(collection).of(chosen)
    drafts = [_pool(n, queries[n], grades[n], near, depth) for n in list(queries)[:most]]
    found = [draft for draft in drafts if draft.passages]
    if not found:
        raise BadInput(f"{folder}: the first stage finds nothing for any query")
    return _records(found, _texts(collection, found))


class _Finders:
    """The first stage of each split: its run file, or one BM25 index for all that have none."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection

    def of(self, split: str) -> Finder:
        """What finds passages for the queries of this split."""
        run = self._collection.run(split)
        return FromRun(read_run(run)) if run.is_file() else self._index

    @cached_property
    def _index(self) -> Finder:
        """Made when it is first needed, from one pass over the passages."""
        return FirstStage(self._collection.passages())


def _answered(collection: Collection, split: str) -> tuple[dict[str, str], Grades]:
    """The queries of a split that have a relevant passage, and the judgements."""
    grades = collection.qrels(split)
    answered = {q for q, judged in grades.items() if any(grade > 0 for grade in judged.values())}
    queries = {q: text for q, text in collection.queries(split).items() if q in answered and text}
    if not queries:
        raise BadInput(f"{collection.folder}: no query of split {split!r} has a relevant passage")
    return queries, grades


def _probe_count(queries: int, lists: PublicLists, most: int) -> int:
    """How many of so many queries become probes."""
    return max(1, min(most, queries * lists.probe_share // 100))


def _list(
    name: str, query: str, judged: Mapping[str, int], finder: Finder, count: int, draws: Draws
) -> _Draft:
    """A training list: the best passage first, then hard and random negatives."""
    best = min((n for n, grade in judged.items() if grade > 0), key=lambda n: (-judged[n], n))
    relevant = {n for n, grade in judged.items() if grade > 0}
    depth = 4 * count + len(relevant)
    near = [n for n, _ in finder.best(name, query, depth) if n not in relevant]
    hard = draws.sample(near, min(len(near), count - count // 2))
    taken = relevant | set(hard)
    random = [
        n for n in draws.sample(finder.ids, min(len(finder.ids), count + len(taken)))
        if n not in taken
    ]  # fmt: skip
    negatives = [*hard, *random][:count]
    return _Draft(name, query, ((best, judged[best], None), *((n, 0, None) for n in negatives)))


def _pool(name: str, query: str, judged: Mapping[str, int], finder: Finder, depth: int) -> _Draft:
    """A list to evaluate on: what the first stage finds, and the grades of what it does not."""
    found = finder.best(name, query, depth)
    missed = {n: grade for n, grade in judged.items() if n not in dict(found)}
    return _Draft(name, query, tuple((n, judged.get(n), score) for n, score in found), missed)


def _texts(collection: Collection, drafts: Sequence[_Draft]) -> dict[str, str]:
    """Texts of the passages in some list."""
    wanted = {name for draft in drafts for name, _, _ in draft.passages}
    texts = {name: text for name, text in collection.passages() if name in wanted}
    if lost := sorted(wanted - texts.keys()):
        raise BadInput(
            f"{collection.folder}: passage {lost[0]!r} is judged or ranked but not there"
        )
    return texts


def _records(drafts: Sequence[_Draft], texts: Mapping[str, str]) -> list[Record]:
    """The drafts with something to read in their lists."""
    return [
        draft.record(texts) for draft in drafts if any(texts[name] for name, _, _ in draft.passages)
    ]


def _notes(probes: Sequence[_Draft], found: Sequence[_Draft]) -> tuple[str, ...]:
    """What a reader of the figures must know."""
    lost = sum(any(grade > 0 for grade in draft.missed.values()) for draft in found)
    notes = []
    if len(found) < len(probes):
        notes.append(f"{len(probes) - len(found)} probes held out: the first stage finds nothing")
    if lost:
        notes.append(
            f"{lost} of {len(found)} probes have a relevant passage that the first stage missed; "
            "it counts against the ranking"
        )
    return tuple(notes)


def _dealt(
    records: Sequence[Record],
    probes: Sequence[Record],
    hospitals: int,
    source: Path,
    notes: tuple[str, ...],
) -> Ward:
    """Records dealt round robin, so that hospitals differ by one at most."""
    if len(records) < hospitals:
        raise BadInput(
            f"{source}: {len(records)} queries to deal out; {hospitals} hospitals need one each"
        )
    if not probes:
        raise BadInput(f"{source}: the first stage finds nothing for any query to evaluate on")
    parts = tuple(tuple(records[start::hospitals]) for start in range(hospitals))
    return Ward(parts, tuple(probes), notes)
