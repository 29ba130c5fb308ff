"""TREC's two files: who judged what (qrels), and what a system ranked (runs).

Refusals name file and line. Formats: ``query 0 passage grade`` and ``query Q0 passage rank score
tag``, parted by blanks or tabs. Knows nothing of texts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from wardround.client.tasks.lines import columns
from wardround.client.tasks.ranking.metrics import ranking
from wardround.privacy.errors import BadInput


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Grades by query and passage; ids are text.

    Raises:
        BadInput: A line is malformed, or judges a passage a second time and otherwise.
    """
    return grades_of(
        path,
        (
            (line, query, passage, grade)
            for line, (query, _, passage, grade) in columns(path, 4, tabs_only=False)
        ),
    )


def grades_of(path: Path, judged: Iterable[tuple[int, str, str, str]]) -> dict[str, dict[str, int]]:
    """Grades by query and passage, from (line, query, passage, grade)."""
    found: dict[str, dict[str, int]] = {}
    for line, query, passage, text in judged:
        try:
            grade = int(text)
        except ValueError as error:
            raise BadInput(f"{path}:{line}: the grade is not a whole number") from error
        if found.setdefault(query, {}).setdefault(passage, grade) != grade:
            raise BadInput(f"{path}:{line}: this passage was judged before, with another grade")
    if not found:
        raise BadInput(f"{path}: judges nothing")
    return found


def read_run(path: Path) -> dict[str, dict[str, float]]:
    """Scores by query and passage; ranks are ignored, as trec_eval ignores them.

    Raises:
        BadInput: A line is malformed, or ranks a passage twice.
    """
    found: dict[str, dict[str, float]] = {}
    for line, (query, _, passage, _, text, _) in columns(path, 6, tabs_only=False):
        try:
            score = float(text)
        except ValueError as error:
            raise BadInput(f"{path}:{line}: the score is not a number") from error
        if not math.isfinite(score):
            raise BadInput(f"{path}:{line}: the score is not finite")
        if passage in found.setdefault(query, {}):
            raise BadInput(f"{path}:{line}: this passage was ranked before for the same query")
        found[query][passage] = score
    if not found:
        raise BadInput(f"{path}: ranks nothing")
    return found


def write_run(run: Mapping[str, Mapping[str, float]], path: Path, tag: str) -> None:
    """Write a run, best first; passages of equal score stand as trec_eval would order them."""
    with path.open("w", encoding="utf-8") as file:
        for query, scores in run.items():
            for rank, (passage, score) in enumerate(ranking(scores), start=1):
                file.write(f"{query} Q0 {passage} {rank} {score!r} {tag}\n")
