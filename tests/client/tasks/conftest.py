"""Loads the contract suite, which is not a test module, and hands its checks and cases to tests."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def _module(name: str) -> ModuleType:
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"task_{name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


contract = _module("contract")
cases = _module("cases")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "check" in metafunc.fixturenames:
        metafunc.parametrize("check", contract.CHECKS, ids=lambda check: check.__name__)
    if "case_name" in metafunc.fixturenames:
        metafunc.parametrize("case_name", sorted(cases.CASES))


@pytest.fixture(scope="session")
def case(request: pytest.FixtureRequest):
    """The case of the task named by ``case_name``, made once."""
    made = {}

    def make(name: str):
        if name not in made:
            made[name] = cases.CASES[name]()
        return made[name]

    return make


@pytest.fixture(scope="session")
def all_cases():
    return cases.CASES


@pytest.fixture(scope="session")
def all_checks():
    return {check.__name__: check for check in contract.CHECKS}
