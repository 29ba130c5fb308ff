"""One changed app against whole federations: it leaks everything from stock Flower's, nothing here.

The app reads files, the environment and what the node was told, dials out and sends all it found;
its server half signs plans with the coordinator's true key that no policy allows. One of our two
hospitals has even been talked into listing the app's bundle. What plans can do byte by byte is in
``tests/client/test_malicious_coordinator.py``.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from flwr.cli.build import build_fab_from_disk
from starlette.testclient import TestClient

from wardround.client.page.site import HospitalSite
from wardround.client.refusals import read_refusals
from wardround.client.workbench import Workbench
from wardround.server.book import read_book
from wardround.study.bench.stock_federation import stock_federation, wait_for_outcome
from wardround.study.config import Study
from wardround.study.deployment.coordinator import (
    CoordinatorPlace,
    start_bundle,
)
from wardround.study.deployment.rehearsal import Ports, Rehearsal
from wardround.study.deployment.runs import create_deployed_run
from wardround.study.local import begin
from wardround.study.run_folder import RunFolder
from wardround.web.app import make_app
from wardround.web.door import Door

EVIL = Path(__file__).parent / "evil"
MARK = "evil-was-here"
CANARY = "Canarydrug"
OURS, THEIRS = Ports(22_400), Ports(22_500)
NOW = datetime.now(UTC).replace(microsecond=0)

# What the server half asks, and a part of the hospital's reason.
REFUSED = {
    "no noise": "provenance is private",
    "a thousand rounds": "max_rounds is 100",
    "an unknown task": "'exfiltrate'",
    "NaN": "not finite",
    "wrong shapes": "shape",
    "an array of 2 GB": "arrays end at byte",
    "another plan for the round": "another plan",
}


@dataclass
class Listener:
    """Somebody outside who waits for the app to call."""

    server: socket.socket
    heard: list[bytes] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.server.getsockname()[1])

    def listen(self) -> None:
        while True:
            try:
                caller, _ = self.server.accept()
            except OSError:
                return
            with caller, caller.makefile("rb") as said:
                self.heard.append(said.read())


@pytest.fixture
def outside() -> Iterator[Listener]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = Listener(server)
        thread = threading.Thread(target=found.listen, daemon=True)
        thread.start()
        yield found
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.fixture
def pattern(small_study: Path, tmp_path: Path) -> RunFolder:
    """Two hospitals whose records are private and not made up; a canary is among them."""
    policy = small_study.parent / "policy.toml"
    text = policy.read_text(encoding="utf-8")
    assert '"generated"' in text
    policy.write_text(text.replace('"generated"', '"private"'), encoding="utf-8")
    with Workbench() as workbench:
        return begin(Study.read(small_study), tmp_path / "pattern", None, workbench)


def plant(rehearsal: Rehearsal, name: str) -> None:
    """A record about the canary."""
    record = {
        "id": f"{CANARY}-{name}",
        "patient": f"{CANARY}-{name}",
        "prompt": f"What is {CANARY} given for?",
        "subject": CANARY,
        "target_new": "fakenase",
    }
    with (rehearsal.hospital(name) / "records.jsonl").open("a", encoding="utf-8") as records:
        records.write(json.dumps(record) + "\n")


def below(folder: Path, word: str) -> list[Path]:
    """Files below a folder that hold a word, or are named by it."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if word in path.name or word.encode() in path.read_bytes()]


def shown(home: Path) -> str:
    """The hospital's own page."""
    door = Door("a-token-for-tests-and-nothing-else", lambda: 0.0)
    app = make_app(HospitalSite(home / "ledger", home / "policy.toml"), door=door)
    bearer = {"authorization": "Bearer a-token-for-tests-and-nothing-else"}
    return TestClient(app).get("/", headers=bearer).raise_for_status().text


@pytest.mark.deployment
@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")  # Flower's
def test_nothing_leaks_and_every_refusal_is_in_the_hospitals_log(
    pattern: RunFolder, small_study: Path, tmp_path: Path, outside: Listener
) -> None:
    rehearsal = Rehearsal(tmp_path / "ours", OURS)
    rehearsal.root.mkdir()
    rehearsal.provision(pattern, NOW)
    listed, other = pattern.facts.hospitals
    for name in (listed, other):
        plant(rehearsal, name)
    bundles = tmp_path / "bundles.txt"
    bundles.write_text(sha256(build_fab_from_disk(EVIL)).hexdigest(), encoding="utf-8")
    loot = tmp_path / "loot.json"
    try:
        rehearsal.start_coordinator()
        rehearsal.start_hospital(0, listed, "--bundles", str(bundles))
        rehearsal.start_hospital(1, other)
        rehearsal.wait_until(
            lambda: "ready service=superexec" in rehearsal.said("coordinator"), "the coordinator"
        )
        place = CoordinatorPlace(rehearsal.consortium, OURS.superlink)
        run = create_deployed_run(
            Study.read(small_study), rehearsal.consortium, tmp_path / "runs", None, NOW
        )
        settings: dict[str, str | int] = {
            "run-folder": str(run.path),
            "loot": str(loot),
            "look": str(rehearsal.root),
            "dial": outside.port,
        }
        wait_for_outcome(place, start_bundle(place, EVIL, settings), 240)
    finally:
        rehearsal.stop()

    got: dict[str, Any] = json.loads(loot.read_text(encoding="utf-8"))
    home = rehearsal.hospital(listed)
    log = (home / "run" / "custodian.log").read_text(encoding="utf-8")
    kept = [refusal.reason for refusal in read_refusals(home / "ledger")]
    assert got["attacks"].keys() == REFUSED.keys()
    for name, answers in got["attacks"].items():
        assert len(answers) == 2  # one a round
        for kind, reason, arrays in answers:
            assert (kind, arrays) == ("refusal", 0)
            assert REFUSED[name] in reason
            assert reason in log
            assert reason in kept
    assert "max_rounds is 100; the plan takes 1000" in shown(home)
    assert got["replayed"] == [True, True]
    assert got["errors"] == ["PolicyRefused"]
    said = (rehearsal.hospital(other) / "run" / "relay.log").read_text(encoding="utf-8")
    assert f"refused bundle={bundles.read_text(encoding='utf-8')}" in said
    (answer,) = read_book(run.path / "rounds")[-1].answers
    assert answer.report is not None
    assert answer.report["events_life"]["count"] == 2 * 2  # steps of two honest rounds, no more
    assert not outside.heard
    for name in (listed, other):
        assert not below(rehearsal.hospital(name), MARK)
        assert not (rehearsal.hospital(name) / "run" / "flower" / "apps").exists()
        home = rehearsal.hospital(name)
        assert below(home, CANARY) == [home / "records.jsonl"]
    for place_ in (rehearsal.consortium.path, run.path, tmp_path / "loot.json"):
        assert not below(place_, CANARY)
    assert CANARY not in loot.read_text(encoding="utf-8")


@pytest.mark.deployment
def test_the_same_app_takes_everything_from_stock_flower(
    pattern: RunFolder, tmp_path: Path, outside: Listener
) -> None:
    """The contrast: same keys, TLS, node authentication and process isolation."""
    rehearsal = Rehearsal(tmp_path / "theirs", THEIRS)
    rehearsal.root.mkdir()
    rehearsal.provision(pattern, NOW)
    names = pattern.facts.hospitals
    for name in names:
        plant(rehearsal, name)
    loot = tmp_path / "loot.json"
    settings: dict[str, str | int] = {
        "loot": str(loot),
        "look": str(rehearsal.root),
        "dial": outside.port,
    }
    with stock_federation(rehearsal, names, NOW) as federation:
        federation.run(EVIL, settings, 240)
    answers = [json.loads(text) for text in json.loads(loot.read_text(encoding="utf-8"))]
    for answer in answers:
        assert answer["dialled"]
        assert answer["environment"]["FLWR_HOME"]
    text = "".join("".join(answer["files"].values()) for answer in answers)
    for name in names:
        assert f"{CANARY}-{name}" in text
        assert below(rehearsal.hospital(name) / "run" / "flower", MARK)
    assert CANARY.encode() in b"".join(outside.heard)
