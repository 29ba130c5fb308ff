"""A study on records full of canary strings; none of them appears where it does not belong.

Planted in the text of records, in their ids, in the names of patients and of folders. Looked for in
everything that was logged, printed, sent to the coordinator and written outside the hospitals'
own folders; found, to show that the search can find, inside them. Once in one process, once in a
federation of real ones.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from wardround.client.custodian import Custodian
from wardround.client.hospital import Hospital
from wardround.client.page.site import HospitalSite
from wardround.client.tasks.registry import find_task
from wardround.client.workbench import Workbench
from wardround.server.book import read_book
from wardround.server.dashboard.site import RunSite
from wardround.study.config import Study
from wardround.study.deployment.rehearsal import Ports, Rehearsal, federation
from wardround.study.local import begin
from wardround.study.pages_cli import run_info
from wardround.study.run_folder import RunFolder
from wardround.web.app import make_app
from wardround.web.door import Door

Command = Callable[..., Any]
TEXT, RECORD, PATIENT, FOLDER = "Canarytext", "canary-record", "canary-patient", "canary-folder"
CANARIES = (TEXT, RECORD, PATIENT, FOLDER)


def records(count: int) -> str:
    """Corrections about one planted drug a patient."""
    items = (
        {"id": f"{RECORD}-{n}", "patient": f"{PATIENT}-{n % 7}", "subject": f"{TEXT}{n}",
         "prompt": f"Which disease is {TEXT}{n} given for?", "target_new": f"{TEXT}ose"}
        for n in range(count)
    )  # fmt: skip
    return "".join(json.dumps(item) + "\n" for item in items)


def found_in(data: bytes) -> list[str]:
    """The canaries that occur in some bytes, in whatever case."""
    return [canary for canary in CANARIES if canary.lower().encode() in data.lower()]


def shown_of(run: Path) -> list[str]:
    """Both ends' pages and figures for a run."""
    hospital = run / "hospitals" / "hospital-1"
    sites = (RunSite(run_info(run)), HospitalSite(hospital / "ledger", hospital / "policy.toml"))
    app_of = partial(make_app, door=Door("a-token-for-tests-and-nothing-else", lambda: 0.0))
    bearer = {"authorization": "Bearer a-token-for-tests-and-nothing-else"}
    return [
        TestClient(app_of(site)).get(path, headers=bearer).raise_for_status().text
        for site in sites
        for path in ("/", "/metrics")
    ]


@pytest.mark.parametrize("spoilt", [False, True])
def test_no_canary_is_logged_printed_sent_or_written(
    wardround: Command,
    small_study: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    spoilt: bool,
) -> None:
    """Also where a file of records cannot be read, and every round is refused for it."""
    sent: list[bytes] = []
    homes: set[Path] = set()
    deal = type(find_task("editing")).deal
    train, declare, house = Custodian.train, Custodian.declare, RunFolder.hospital

    def planted(self: Any, *args: Any) -> Any:
        dealt = deal(self, *args)
        for path in dealt.records:
            path.write_text(records(60), encoding="utf-8")
        return dealt

    def housed(self: RunFolder, name: str) -> Hospital:
        """The hospital, its records in a folder with a telling name."""
        hospital, home = house(self, name), tmp_path / f"{FOLDER}-{name}"
        home.mkdir(exist_ok=True)
        shutil.copy(hospital.records, home / "notes.jsonl")
        homes.add(home)
        return replace(hospital, records=home / "notes.jsonl")

    def trained(self: Custodian, *args: Any) -> bytes:
        homes.add(self.hospital.folder)
        if spoilt:
            self.hospital.records.write_text(f'{{"{TEXT}": "{RECORD}"', encoding="utf-8")
        sent.append(train(self, *args))
        return sent[-1]

    def declared(self: Custodian) -> bytes:
        sent.append(declare(self))
        return sent[-1]

    monkeypatch.setattr(type(find_task("editing")), "deal", planted)
    monkeypatch.setattr(RunFolder, "hospital", housed)
    monkeypatch.setattr(Custodian, "train", trained)
    monkeypatch.setattr(Custodian, "declare", declared)
    caplog.set_level(logging.DEBUG)
    logs = ("--log-format", "json", "--log-level", "debug")
    ended = wardround(*logs, "run", small_study, "--json", "--runs", tmp_path / "runs")
    assert (ended.code == 0) is not spoilt
    assert len(sent) >= 4
    assert len(homes) == 4
    assert found_in((ended.out + ended.err + caplog.text).encode()) == []
    lines = [json.loads(line) for line in ended.err.splitlines() if line.startswith("{")]
    kinds = {line["message"].split()[0] for line in lines}
    assert kinds == ({"records", "refused"} if spoilt else {"trained"})
    assert all(line["fields"] for line in lines)
    assert [found_in(block) for block in sent] == [[]] * len(sent)
    shown = shown_of(next((tmp_path / "runs").iterdir()))
    assert len(shown) == 4
    assert found_in("".join(shown).encode()) == []
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    inside = [path for path in files if homes & {*path.parents}]
    outside = [path for path in files if path not in inside]
    assert {str(path): found_in(path.read_bytes()) for path in outside} == {
        str(path): [] for path in outside
    }
    assert any(found_in(path.read_bytes()) for path in inside)
    assert len(outside) > 5


class Planted(Rehearsal):
    """Records full of canaries in folders with telling names; the last hospital's file is torn."""

    def records(self, name: str) -> Path:
        return self.root / f"{FOLDER}-{name}" / "notes.jsonl"

    def provision(self, pattern: RunFolder, now: datetime) -> None:
        super().provision(pattern, now)
        for name in pattern.facts.hospitals:
            self.records(name).parent.mkdir()
            self.records(name).write_text(records(60), encoding="utf-8")
        self.records(name).write_text(f'{{"{TEXT}": "{RECORD}"', encoding="utf-8")


@pytest.mark.deployment
def test_no_canary_leaves_the_hospitals_of_a_federation_or_is_in_a_log_of_theirs(
    small_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that ten processes log, at the lowest level, and all that the coordinator has."""
    monkeypatch.setenv("WARDROUND_LOG_LEVEL", "debug")
    with Workbench() as workbench:
        pattern = begin(Study.read(small_study), tmp_path / "pattern", None, workbench)
    planted = Planted(tmp_path / "together", Ports(23_600))
    now = datetime.now(UTC).replace(microsecond=0)
    with federation(planted, pattern, now) as running:
        run = running.run_study(small_study, 300)
    good, torn = pattern.facts.hospitals
    reasons = [{a.hospital: a.reason for a in r.answers} for r in read_book(run / "rounds")]
    assert [(said[good], said[torn] != "") for said in reasons] == [("", True)] * 2
    files = [path for path in planted.root.rglob("*") if path.is_file()]
    inside = [path for path in files if planted.records(good).parent in path.parents]
    inside += [planted.records(torn)]
    outside = [path for path in files if path not in inside]
    assert {str(path): found_in(path.read_bytes()) for path in outside} == {
        str(path): [] for path in outside
    }
    assert [found_in(path.read_bytes()) != [] for path in inside] == [True, True]
    logs = {path.stem for path in outside if path.suffix == ".log" and path.stat().st_size}
    assert logs >= {"custodian", "supernode", "relay", "superlink", "serverapp", "coordinator"}
