"""Near misses for a hospital's queries, from a public collection, before any training.

``python -m wardround.client.tasks.ranking.negatives --lists OWN --public FOLDER --to LISTS`` adds
to each list the public passages that BM25 finds nearest to its query.

Privacy: the index is of public passages alone, so what a record gets depends on that record and on
public things; no other record's list changes with it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from wardround.client.tasks.base import Record
from wardround.client.tasks.ranking.first_stage import FirstStage
from wardround.client.tasks.ranking.formats import read_lists, write_lists
from wardround.client.tasks.ranking.public import Collection
from wardround.client.tasks.ranking.records import Candidate, RankingQuery
from wardround.privacy.errors import BadInput, WardroundError

PUBLIC = "public-"  # before a public passage's id, so that it is nobody's own passage


def add_public_negatives(
    records: Sequence[Record], collection: Collection, count: int
) -> list[Record]:
    """The records with up to ``count`` public passages more in each list, nearest first.

    A record keeps its owners: a public passage is no patient's. Passages that a list holds already
    are not added.
    """
    index = FirstStage(collection.passages())
    found = {
        record.id: [name for name, _ in index.retrieve(record.content.text, count)]
        for record in records
    }
    wanted = {name for names in found.values() for name in names}
    texts = {name: text for name, text in collection.passages() if name in wanted and text}
    return [_longer(record, found[record.id], texts) for record in records]


def _longer(record: Record, names: Sequence[str], texts: dict[str, str]) -> Record:
    """One record with its public passages."""
    query: RankingQuery = record.content
    held = {candidate.text for candidate in query.candidates}
    patients = {candidate.patient for candidate in query.candidates}
    patient = patients.pop() if len(patients) == 1 else ""
    fresh = tuple(
        Candidate(f"{PUBLIC}{name}", texts[name], None, None, patient)
        for name in names
        if name in texts and texts[name] not in held
    )
    return replace(record, content=replace(query, candidates=(*query.candidates, *fresh)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from a command line."""
    parser = argparse.ArgumentParser(description="Add public near misses to lists.")
    parser.add_argument("--lists", required=True, type=Path, help="a hospital's queries")
    parser.add_argument("--public", required=True, type=Path, help="a BEIR or MS MARCO folder")
    parser.add_argument("--to", required=True, type=Path, help="where the longer lists go")
    parser.add_argument("--count", type=int, default=7, help="public passages a list")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.count < 1:
            raise BadInput(f"--count is {chosen.count}; it must be 1 or more")
        if chosen.to.exists():
            raise BadInput(f"--to {chosen.to}: exists already")
        records = read_lists(chosen.lists)
        longer = add_public_negatives(records, Collection.open(chosen.public), chosen.count)
    except WardroundError as error:
        print(f"negatives: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    write_lists(longer, chosen.to)


if __name__ == "__main__":
    main()
