"""Pages that name tests or quote messages: what they name is there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RINGS = ("privacy", "strategies", "client", "server", "study", "web")
READINESS = (ROOT / "docs" / "production-readiness.md").read_text(encoding="utf-8")
TROUBLE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`( \(long\))?")
ANY = "…"  # stands for whatever a message fills in


def rows(page: str) -> Iterator[list[str]]:
    """Cells of every line of every table, headings left out."""
    lines = page.splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        if line.startswith("| ") and before.startswith(("| ", "|--")):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


@cache
def cases_in(path: str) -> dict[str, bool]:
    """Tests of a module, and whether ``make test`` leaves them out."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    whole = any(
        isinstance(node, ast.Assign) and ast.unparse(node) == "pytestmark = pytest.mark.deployment"
        for node in tree.body
    )
    return {
        node.name: whole
        or any(ast.unparse(mark) == "pytest.mark.deployment" for mark in node.decorator_list)
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
    }


def test_every_check_has_tests_that_are_there() -> None:
    checks = list(rows(READINESS))
    assert len(checks) > 30
    for check, _, tests in checks:
        named = TEST.findall(tests)
        assert named, check
        assert TEST.sub("", tests).replace(",", "").strip() == "", check
        for path, name, long in named:
            assert name in cases_in(path), f"{path}::{name}"
            assert bool(long) == cases_in(path)[name], f"{path}::{name}: long?"


@cache
def messages(folder: Path) -> tuple[str, ...]:
    """Every text in the code below a folder; what is filled in shows as an ellipsis."""
    found = []
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = (p.value if isinstance(p, ast.Constant) else ANY for p in node.values)
                found.append("".join(map(str, parts)))
    return tuple(found)


def flower() -> Path:
    spec = find_spec("flwr")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def is_said(quoted: str, folders: list[Path]) -> bool:
    """Whether a text in the code has the quoted words in this order."""
    parts = [re.escape(part.strip()) for part in quoted.split(ANY) if part.strip()]
    pattern = re.compile(".*".join(parts), re.DOTALL)
    return any(pattern.search(text) for folder in folders for text in messages(folder))


def quoted_messages() -> list[tuple[str, str]]:
    """Section and message of every row."""
    found = []
    for section in TROUBLE.split("\n## ")[1:]:
        title = section.partition("\n")[0]
        if title == "Without a message":
            continue
        for row in rows(section):
            assert len(row) == 3, row
            found += [(title, message) for message in re.findall(r"`([^`]+)`", row[0])]
    return found


def test_the_page_quotes_many_messages() -> None:
    assert len(quoted_messages()) > 50


@pytest.mark.parametrize(("section", "message"), quoted_messages())
def test_every_quoted_message_is_one_that_is_printed(section: str, message: str) -> None:
    assert sum(map(str.isalpha, message)) >= 9, "too short to tell one message from another"
    ours = [ROOT / ring for ring in RINGS]
    assert is_said(message, [flower()] if section == "Flower's own messages" else ours), message


def test_a_message_that_nobody_prints_is_found() -> None:
    assert not is_said("the coordinator … is made of cheese", [ROOT / "client", ROOT / "study"])
