"""Lists of candidates from JSON lines: Tevatron's, FlagEmbedding's and one pair a line.

Every refusal names file, line and field, and never repeats what the file says: it may be about a
patient. Knows nothing of training. Formats: Tevatron (``query_id``, ``query``,
``positive_passages``, ``negative_passages``), which TSARankLLM's released code reads too, with
optional ``patient``, ``grade``, ``score`` and ``missed`` of ours; FlagEmbedding (``query``,
``pos``, ``neg``); TSARankLLM's evaluation pairs (``qid``, ``pid``, ``query``, ``passage``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wardround.client.tasks.base import Record
from wardround.client.tasks.lines import json_lines
from wardround.client.tasks.ranking.records import Candidate, RankingQuery, ranking_record
from wardround.privacy import Unit
from wardround.privacy.errors import BadInput
from wardround.privacy.tables import nearest

TEVATRON = ("query_id", "query", "positive_passages", "negative_passages", "patient", "missed")
FLAG_EMBEDDING = ("id", "query", "pos", "neg", "pos_scores", "neg_scores", "prompt", "type",
                  "pos_id", "neg_id", "patient")  # fmt: skip
PAIR = ("qid", "pid", "query", "passage")
PASSAGE = ("docid", "title", "text", "grade", "score", "patient")


class _Wrong(ValueError):
    """A field that cannot be used; the caller adds where it stands."""


def read_lists(path: Path) -> list[Record]:
    """The queries of a file with their lists, in its order.

    Raises:
        BadInput: The file is missing, empty, not JSON lines or not UTF-8, or a line cannot be used.
    """
    if path.is_dir():
        raise BadInput(
            f"{path}: a folder holds no lists; they would have to be mined in it, and for training "
            "they come with the records (deal out a public collection with --data)"
        )
    records: list[Record] = []
    lines: dict[str, int] = {}
    pairs: list[tuple[int, Mapping[str, Any]]] = []
    for line, item in json_lines(path):
        try:
            if isinstance(item, dict) and "pid" in item:
                _known(item, PAIR)
                pairs.append((line, item))
                continue
            record = _record(item, f"line-{line:06d}")
        except ValueError as error:
            raise BadInput(f"{path}:{line}: {error}") from error
        if record.id in lines:
            raise BadInput(f"{path}:{line}: query_id occurs before, on line {lines[record.id]}")
        lines[record.id] = line
        records.append(record)
    if pairs and records:
        raise BadInput(f"{path}:{pairs[0][0]}: pairs and lists are mixed in one file")
    records += _grouped(pairs, path)
    if not records:
        raise BadInput(f"{path}: holds no queries")
    return records


def write_lists(records: Sequence[Record], path: Path) -> None:
    """Write lists in Tevatron's format; ``read_lists`` reads equal records back.

    Candidates come out with the relevant ones first, as the format has them.
    """
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(_item(record), ensure_ascii=False) + "\n")


def _item(record: Record) -> dict[str, Any]:
    """One line."""
    query: RankingQuery = record.content
    item: dict[str, Any] = {"query_id": record.id, "query": query.text}
    if patient := record.owners.get(Unit.PATIENT):
        item["patient"] = patient
    item["positive_passages"] = [_passage(c, 1) for c in query.candidates if (c.grade or 0) > 0]
    item["negative_passages"] = [_passage(c, 0) for c in query.candidates if (c.grade or 0) <= 0]
    if query.missed:
        item["missed"] = dict(query.missed)
    return item


def _passage(candidate: Candidate, usual: int) -> dict[str, Any]:
    """One passage; a grade is written where it is not the usual one of its side."""
    item: dict[str, Any] = {"docid": candidate.id, "text": candidate.text}
    if candidate.grade != usual:
        item["grade"] = candidate.grade
    if candidate.score is not None:
        item["score"] = candidate.score
    if candidate.patient:
        item["patient"] = candidate.patient
    return item


def _record(item: object, default_id: str) -> Record:
    """One line as a record; ``ValueError`` names the field."""
    if not isinstance(item, dict):
        raise _Wrong(f"expected an object, found {type(item).__name__}")
    if "pos" in item or "neg" in item:
        _known(item, FLAG_EMBEDDING)
        name = _text(item, "id") or default_id
        candidates = (*_plain(item, "pos", 1), *_plain(item, "neg", 0))
        missed: dict[str, int] = {}
    else:
        _known(item, TEVATRON)
        name = _text(item, "query_id") or default_id
        candidates = (
            *_passages(item, "positive_passages", 1),
            *_passages(item, "negative_passages", 0),
        )
        missed = _missed(item)
    if any(character.isspace() for character in name):
        raise _Wrong("the query's id holds a blank, which no TREC file could")
    query = RankingQuery(_text(item, "query", needed=True), _once(candidates), missed)
    return ranking_record(name, query, _text(item, "patient"))


def _passages(item: Mapping[str, Any], field: str, usual: int) -> Iterator[Candidate]:
    """Tevatron's passages; ``title`` and ``text`` are read as one text."""
    values = item.get(field, [])
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise _Wrong(f"field {field!r}: expected a list of objects")
    for number, value in enumerate(values):
        where = f"{field}[{number}]"
        _known(value, PASSAGE, f"{where}: ")
        grade = value.get("grade", usual)
        if grade is not None and (not isinstance(grade, int) or isinstance(grade, bool)):
            raise _Wrong(f"field '{where}.grade' is a {type(grade).__name__}; expected an integer")
        if (usual > 0) != ((grade or 0) > 0):
            raise _Wrong(f"field '{where}.grade' does not fit {field}")
        score = value.get("score")
        if score is not None and (not isinstance(score, int | float) or isinstance(score, bool)):
            raise _Wrong(f"field '{where}.score' is a {type(score).__name__}; expected a number")
        text = joined(_text(value, "title"), _text(value, "text", needed=True))
        name = _text(value, "docid") or _name_of(text)
        yield Candidate(name, text, grade, None if score is None else float(score),
                        _text(value, "patient"))  # fmt: skip


def _plain(item: Mapping[str, Any], field: str, grade: int) -> Iterator[Candidate]:
    """FlagEmbedding's passages, which have no ids; a teacher's scores there are not read."""
    values = item.get(field, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise _Wrong(f"field {field!r}: expected a list of texts")
    for text in values:
        yield Candidate(_name_of(text), text.strip(), grade, None, _text(item, "patient"))


def _name_of(text: str) -> str:
    """An id for a passage without one; a digest, so that no tie favours a label."""
    return hashlib.sha256(text.strip().encode()).hexdigest()[:16]


def _grouped(pairs: Sequence[tuple[int, Mapping[str, Any]]], path: Path) -> list[Record]:
    """One pair a line, collected by query; nothing in such a file is judged."""
    queries: dict[str, str] = {}
    found: dict[str, list[Candidate]] = {}
    for line, item in pairs:
        try:
            name, query = _text(item, "qid", needed=True), _text(item, "query", needed=True)
            if queries.setdefault(name, query) != query:
                raise _Wrong("field 'query' differs from that of an earlier line of this qid")
            passage = Candidate(
                _text(item, "pid", needed=True), _text(item, "passage", needed=True)
            )
            found.setdefault(name, []).append(passage)
        except ValueError as error:
            raise BadInput(f"{path}:{line}: {error}") from error
    return [
        ranking_record(name, RankingQuery(queries[name], _once(candidates)))
        for name, candidates in found.items()
    ]


def _once(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Each id and each text once; what comes first, the relevant ones, stays."""
    seen: set[str] = set()
    kept = []
    for candidate in candidates:
        keys = {f"id {candidate.id}", f"text {candidate.text}"}
        if not seen & keys:
            kept.append(candidate)
        seen |= keys
    return tuple(kept)


def _missed(item: Mapping[str, Any]) -> dict[str, int]:
    """Grades of passages that are not in the list."""
    values = item.get("missed", {})
    if not isinstance(values, dict) or not all(type(v) is int for v in values.values()):
        raise _Wrong("field 'missed': expected an object of whole numbers")
    return dict(values)


def joined(title: str, text: str) -> str:
    """Title and text as one passage."""
    return f"{title} {text}" if title else text


def _known(item: Mapping[str, Any], fields: Sequence[str], where: str = "") -> None:
    """Refuse the first unknown field."""
    for name in item:
        if name not in fields:
            raise _Wrong(f"{where}unknown field{nearest(name, fields)}")


def _text(item: Mapping[str, Any], field: str, needed: bool = False) -> str:
    """A text field without surrounding blanks; ids that are whole numbers are read as text."""
    value = item.get(field, "")
    if isinstance(value, int) and not isinstance(value, bool) and field.endswith("id"):
        value = str(value)
    if not isinstance(value, str):
        raise _Wrong(f"field {field!r} is a {type(value).__name__}; expected text")
    if needed and not value.strip():
        raise _Wrong(f"field {field!r} is {'empty' if field in item else 'missing'}")
    return value.strip()
