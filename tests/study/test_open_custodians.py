"""Custodians of one process: opened when asked, never more than may be, each with its own lock."""

from __future__ import annotations

import resource
from types import SimpleNamespace
from typing import Any

import pytest

from wardround.client.custodian import Surroundings
from wardround.client.workbench import Workbench
from wardround.privacy.errors import LedgerError
from wardround.privacy.ledger import Ledger
from wardround.privacy.signing import SigningKey
from wardround.study.bench.rivals import RIVALS_TASKS, _write_study
from wardround.study.bench.tiny import register_tiny_task
from wardround.study.config import Study
from wardround.study.engines import in_process
from wardround.study.engines.in_process import OpenCustodians
from wardround.study.local import begin
from wardround.study.run_folder import RunFolder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Four hospitals that have not been asked anything yet."""
    register_tiny_task()
    home = tmp_path_factory.mktemp("study")
    study = Study.read(_write_study(home, RIVALS_TASKS["A"], 2))
    with Workbench() as workbench:
        return begin(study, home / "runs", None, workbench)


def held(folder: RunFolder, name: str) -> bool:
    """Whether somebody holds the hospital's ledger."""
    hospital = folder.hospital(name)
    try:
        Ledger(hospital.ledger, SigningKey.load_or_create(hospital.key)).close()
    except LedgerError as error:
        return "another process holds this ledger" in str(error)
    return False


def test_a_custodian_is_opened_when_it_is_asked_and_holds_its_ledger(folder: RunFolder) -> None:
    with OpenCustodians(folder, Surroundings(Workbench()), most=2) as custodians:
        assert not any(held(folder, name) for name in folder.facts.hospitals)
        first = custodians.of("hospital-1")
        assert custodians.of("hospital-1") is first
        assert [held(folder, name) for name in folder.facts.hospitals] == [
            True,
            False,
            False,
            False,
        ]
    assert not any(held(folder, name) for name in folder.facts.hospitals)


def test_where_too_many_are_open_the_one_asked_longest_ago_gives_way(folder: RunFolder) -> None:
    with OpenCustodians(folder, Surroundings(Workbench()), most=2) as custodians:
        first = custodians.of("hospital-1")
        custodians.of("hospital-2")
        custodians.of("hospital-1")
        custodians.of("hospital-3")
        assert [held(folder, name) for name in folder.facts.hospitals] == [True, False, True, False]
        custodians.of("hospital-4")
        assert custodians.of("hospital-1") is not first


@pytest.mark.parametrize(
    ("soft", "hard", "hospitals", "raised", "most"),
    [
        (1024, 20_000, 1000, 4200, 1000),
        (1024, 2000, 1000, 2000, 450),
        (1024, 1024, 4, 1024, 206),
        (100, 100, 10, 100, 1),
        (1024, resource.RLIM_INFINITY, 1000, 4200, 1000),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 9, resource.RLIM_INFINITY, 9),
    ],
)
def test_the_limit_on_open_files_is_raised_as_far_as_it_goes_and_put_back(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, hospitals: int, raised: int, most: int
) -> None:
    limits = [(soft, hard)]
    system: Any = SimpleNamespace(
        RLIMIT_NOFILE=resource.RLIMIT_NOFILE,
        RLIM_INFINITY=resource.RLIM_INFINITY,
        getrlimit=lambda kind: limits[-1],
        setrlimit=lambda kind, pair: limits.append(pair),
    )
    monkeypatch.setattr(in_process, "resource", system)
    with in_process._files_for(hospitals) as found:
        assert found == most
        assert limits[-1] == (raised, hard)
    assert limits[-1] == (soft, hard)
