"""Who may use the seal and the one way to make a value that costs nothing."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from wardround.privacy._seal import SEAL, require_seal

ROOT = Path(__file__).parents[2]
FOLDERS = ("privacy", "strategies", "client", "server", "study", "benchmarks", "examples")


def modules(*folders):
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def names_used(tree):
    """Every name, attribute and imported name in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.ImportFrom | ast.Import):
            yield from (alias.name.rpartition(".")[2] for alias in node.names)
            yield from ((node.module or "").split(".") if isinstance(node, ast.ImportFrom) else ())


def test_only_this_package_touches_the_seal():
    users = {
        path
        for path, tree in modules(*FOLDERS)
        if {"_seal", "SEAL", "require_seal"} & set(names_used(tree))
    }
    assert users
    assert all(path.startswith("privacy/") for path in users)


def test_only_these_modules_make_sealed_values():
    """A new one is a new way past the noise, and must be argued for here."""
    makers = {
        path.removeprefix("privacy/")
        for path, tree in modules("privacy")
        if any(isinstance(node, ast.keyword) and node.arg == "seal" for node in ast.walk(tree))
    }
    assert makers == {
        "clipping.py",
        "distributed.py",
        "noise.py",
        "label_book.py",  # reads back what labels.py made and it wrote down itself, under NOTHING
        "labels.py",
        "ledger.py",
        "reconstruction.py",
    }


def test_what_costs_nothing_is_made_in_one_place_outside():
    calls = [
        path
        for path, tree in modules(*FOLDERS)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", getattr(node.func, "attr", "")) == "from_coordinator"
    ]
    assert len(calls) == 1
    assert calls[0].startswith("client/")


def test_the_seal_is_known_by_identity():
    require_seal(SEAL, "it")
    with pytest.raises(TypeError, match="it can only be made inside"):
        require_seal(object(), "it")
