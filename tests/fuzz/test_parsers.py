"""Whatever bytes a parser is given, it reads them or says in a typed error why not.

Each parser gets 40 damaged documents, the same in every run; ``WARDROUND_FUZZ_CASES=1000`` gives
each 1,000 new ones. Nothing else may come out than ``WardroundError``, in bounded time and memory,
and a refusal of a hospital's records never repeats what they say. A new parser is one row in
``messages``, ``files`` or ``records``.
"""

from __future__ import annotations

import os
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wardround.client.tasks.registry import tasks
from wardround.privacy.errors import WardroundError

CASES = int(os.environ.get("WARDROUND_FUZZ_CASES", "40"))
SECONDS = 4.0  # of processor time for one document; the slowest takes 0.3
MEMORY_BYTES = 2**30  # beyond what the process had; a claim of more meets MemoryError


@pytest.fixture
def bounded_memory() -> Iterator[None]:
    """Whoever asks for much memory gets ``MemoryError``, which is no typed error."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def emptied(folder: Path) -> Path:
    """The folder, empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def judge(parser: Any, data: bytes, folder: Path, canary: str) -> None:
    """Read one document; fails unless the outcome is one that is allowed."""
    started = time.process_time()
    try:
        parser.read(data, folder)
    except WardroundError as error:
        told = str(error)
        assert told
        assert len(told) < 2 * len(data) + 2000
        if parser.private:
            assert canary not in told
    assert time.process_time() - started < SECONDS


def test_a_parser_reads_or_refuses(
    parser: Any,
    damaged: Callable[..., st.SearchStrategy[bytes]],
    canary: str,
    tmp_path: Path,
    bounded_memory: None,
) -> None:
    documents = parser.make(emptied(tmp_path / "made"))
    for document in documents:
        parser.read(document, emptied(tmp_path / "read"))

    @settings(
        max_examples=CASES,
        deadline=None,
        database=None,
        derandomize="WARDROUND_FUZZ_CASES" not in os.environ,
        suppress_health_check=list(HealthCheck),
    )
    @given(damaged(documents, parser.kind))
    def run(data: bytes) -> None:
        judge(parser, data, emptied(tmp_path / "read"), canary)

    run()


def test_every_registered_task_is_in_the_table(all_parsers: Any) -> None:
    known = {listing.name for listing in tasks()}
    assert {parser.task for parser in all_parsers if parser.private} - {""} == known
    names = [parser.name for parser in all_parsers]
    assert {f"{name} settings" for name in known} <= set(names)
    assert len(set(names)) == len(names)
