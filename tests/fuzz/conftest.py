"""Loads the table of parsers and the mutations, which are not test modules."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        f"fuzz_{name}", Path(__file__).with_name(f"{name}.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


mutations = _module("mutations")
_module("parsers")
PARSERS = tuple(
    parser for name in ("messages", "files", "records") for parser in _module(name).PARSERS
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "parser" in metafunc.fixturenames:
        metafunc.parametrize("parser", PARSERS, ids=lambda parser: parser.name)


@pytest.fixture(scope="session")
def damaged():
    """Makes the cases of one parser."""
    return mutations.damaged


@pytest.fixture(scope="session")
def canary() -> str:
    """What every damaged text holds."""
    return str(mutations.CANARY)


@pytest.fixture(scope="session")
def all_parsers():
    return PARSERS
