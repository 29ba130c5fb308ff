"""Collections on disk: BEIR's and MS MARCO's folders of passages, queries and judgements.

Passages are streamed, one at a time. Knows nothing of lists or models. Formats: BEIR (Thakur et
al., 2021): ``corpus.jsonl``, ``queries.jsonl``, ``qrels/<split>.tsv`` with a header; MS MARCO
passages: ``collection.tsv``, ``queries.<split>.tsv``, ``qrels.<split>.tsv``. A first stage's run
may lie beside them, as ``runs/<split>.trec`` or ``run.<split>.trec``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wardround.client.tasks.lines import columns, json_lines
from wardround.client.tasks.ranking.formats import joined
from wardround.client.tasks.ranking.trec import grades_of, read_qrels
from wardround.privacy.errors import BadInput

TRAINING = "train"
HELD_OUT = ("test", "dev", "dev.small")
BEIR_HEADER = ["query-id", "corpus-id", "score"]
Grades = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Collection:
    """A folder of passages, queries and judgements.

    Attributes:
        folder: Where it is.
        beir: BEIR's files, else MS MARCO's.
    """

    folder: Path
    beir: bool

    @classmethod
    def open(cls, folder: Path) -> Collection:
        """The collection in ``folder``; ``BadInput`` says which files were looked for."""
        if (folder / "corpus.jsonl").is_file():
            return cls(folder, beir=True)
        if (folder / "collection.tsv").is_file():
            return cls(folder, beir=False)
        raise BadInput(
            f"{folder}: neither corpus.jsonl (BEIR) nor collection.tsv (MS MARCO) is there"
        )

    def passages(self) -> Iterator[tuple[str, str]]:
        """Id and text of each passage, one at a time."""
        if self.beir:
            for _, name, item in _objects(self.folder / "corpus.jsonl"):
                text = joined(item.get("title", "").strip(), item.get("text", "").strip())
                yield name, text.strip()
        else:
            yield from _named(self.folder / "collection.tsv")

    def queries(self, split: str) -> dict[str, str]:
        """Text of each query, by id."""
        if self.beir:
            path = self.folder / "queries.jsonl"
            return {name: item.get("text", "").strip() for _, name, item in _objects(path)}
        return dict(_named(self.folder / f"queries.{split}.tsv"))

    def qrels(self, split: str) -> Grades:
        """Grades by query and passage."""
        path = self._qrels(split)
        return _beir_qrels(path) if self.beir else read_qrels(path)

    def run(self, split: str) -> Path:
        """Where a first stage's run for this split is, if somebody has put one there."""
        return self.folder / (f"runs/{split}.trec" if self.beir else f"run.{split}.trec")

    def splits(self) -> tuple[str, str]:
        """The split to deal out, and another one to evaluate on; empty where there is only one."""
        there = [split for split in (TRAINING, *HELD_OUT) if self._qrels(split).is_file()]
        if not there:
            names = ", ".join(str(self._qrels(split)) for split in (TRAINING, *HELD_OUT))
            raise BadInput(f"{self.folder}: holds no judgements; looked for {names}")
        return there[0], next(iter(there[1:]), "")

    def _qrels(self, split: str) -> Path:
        """The file of judgements."""
        return self.folder / (f"qrels/{split}.tsv" if self.beir else f"qrels.{split}.tsv")


def _objects(path: Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Line, id and content of each object of BEIR's JSON lines."""
    for line, item in json_lines(path):
        name = item.get("_id") if isinstance(item, dict) else None
        if not isinstance(name, str):
            raise BadInput(f"{path}:{line}: field '_id' is missing or not text")
        _check_id(name, path, line)
        for field in ("title", "text"):
            if not isinstance(item.get(field, ""), str):
                raise BadInput(f"{path}:{line}: field {field!r} is not text")
        yield line, name, item


def _beir_qrels(path: Path) -> dict[str, dict[str, int]]:
    """BEIR's judgements: three columns parted by tabs, under a header."""
    rows = columns(path, 3, tabs_only=True)
    line, header = next(rows, (1, []))
    if header != BEIR_HEADER:
        raise BadInput(f"{path}:{line}: expected the header {' '.join(BEIR_HEADER)}")
    judged = ((line, query, passage, grade) for line, (query, passage, grade) in rows)
    return grades_of(path, judged)


def _named(path: Path) -> Iterator[tuple[str, str]]:
    """Id and text of each line of one of MS MARCO's tables."""
    for line, (name, text) in columns(path, 2, tabs_only=True):
        _check_id(name, path, line)
        yield name, text.strip()


def _check_id(name: str, path: Path, line: int) -> None:
    """Refuse an id that no TREC file could hold."""
    if not name or any(character.isspace() for character in name):
        raise BadInput(f"{path}:{line}: the id is empty or holds a blank")
