"""Custodians in processes of their own answer a study; killed ones charge once all the same."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Context, RecordDict
from flwr.serverapp import Grid

from wardround.client.custodian import Surroundings
from wardround.client.custody.calling import RemoteCustodian
from wardround.client.custody.place import UnixSocket
from wardround.client.relay import make_relay
from wardround.client.workbench import Workbench
from wardround.privacy.chain import read_chain
from wardround.privacy.envelope import open_bytes, seal_bytes
from wardround.privacy.journal import LEDGER_FILE
from wardround.privacy.ledger_view import check_ledger
from wardround.privacy.plan import RoundPlan
from wardround.privacy.signing import SigningKey, sha256
from wardround.server.app import make_server_app
from wardround.strategies.checkpoint import load_checkpoint
from wardround.strategies.codec import decode, encode
from wardround.study.config import Study
from wardround.study.engines.in_process import InProcessGrid
from wardround.study.local import begin, first_plan
from wardround.study.run_folder import RunFolder
from wardround.study.runner import Stage, execute, prepare

WORKER = Path(__file__).parent / "dying_custodian.py"
START_S = 600.0  # a busy machine takes long to import a model library


class Processes:
    """Custodian processes of one run; a watched one is started again once, whatever ended it."""

    def __init__(self, folder: RunFolder, place: Path) -> None:
        self.folder = folder
        self._place = place
        self.running: dict[str, subprocess.Popen[str]] = {}
        self.ends: dict[str, list[int]] = {}
        self._watchers: list[threading.Thread] = []

    def socket(self, name: str) -> UnixSocket:
        return UnixSocket(self._place / name / "custodian")

    def start(self, name: str, dying: Sequence[str] = ()) -> None:
        """Start one; ``dying`` is where it kills itself and on which visit."""
        home, hospital = self.folder.path / "hospitals" / name, self.folder.hospital(name)
        command = [sys.executable, "-m", "wardround.study"]
        if dying:
            command = [sys.executable, str(WORKER), *dying]
        command += ["hospital", "custodian", str(home), "--records", str(hospital.records)]
        command += ["--policy", str(hospital.policy), "--coordinator", hospital.coordinator]
        command += ["--name", name, "--socket", str(self.socket(name).path), "--grace-s", "0.1"]
        command += ["--seed", str(self.folder.study.study.seed)]
        self.running[name] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def watch(self, name: str) -> None:
        """Start it again when it ends."""

        def again() -> None:
            process = self.running[name]
            process.communicate()
            self.ends.setdefault(name, []).append(process.returncode)
            self.start(name)

        self._watchers.append(threading.Thread(target=again))
        self._watchers[-1].start()

    def stop(self) -> dict[str, int]:
        """Ask all to stop; their exit codes."""
        for process in self.running.values():
            process.terminate()
        codes = {name: process.wait(60) for name, process in self.running.items()}
        for watcher in self._watchers:
            watcher.join()
        for process in self.running.values():
            if process.stdout is not None and not process.stdout.closed:
                process.stdout.close()
        return codes


def charged(folder: RunFolder, name: str) -> list[int]:
    """Rounds charged, in order; the ledger itself is checked."""
    ledger = folder.path / "hospitals" / name / "ledger"
    check_ledger(ledger, folder.facts.members[name])
    entries = read_chain(ledger / LEDGER_FILE).entries
    return [entry.fields["round"] for entry in entries if entry.fields["kind"] == "reserve"]


@pytest.fixture
def lay_out(small_study: Path, tmp_path: Path) -> Callable[..., RunFolder]:
    def make(name: str, bare: bool = False) -> RunFolder:
        study = Study.read(small_study)
        with Workbench() as workbench:
            return begin(
                study.with_mode_none() if bare else study, tmp_path / name, None, workbench
            )

    return make


@pytest.fixture
def processes(lay_out: Callable[..., RunFolder], tmp_path: Path) -> Iterator[Callable[..., Any]]:
    with ExitStack() as stack:

        def make(name: str, bare: bool = False) -> Processes:
            made = Processes(lay_out(name, bare), tmp_path / "s")
            stack.callback(made.stop)
            return made

        yield make


@pytest.mark.deployment
@pytest.mark.fault
def test_a_study_over_processes_comes_to_the_same_bytes_though_one_is_killed(
    lay_out: Callable[..., RunFolder], processes: Callable[..., Processes]
) -> None:
    """In mode none, where the engine in one process can be repeated to the last bit."""
    ours = processes("processes", bare=True)
    names = ours.folder.facts.hospitals
    ours.start(names[0], dying=("after the charge", "1"))
    ours.start(names[1])
    ours.watch(names[0])
    reference = lay_out("one", bare=True)
    with Workbench() as workbench:
        execute(reference, Stage(workbench=workbench))

    def engine(main: Callable[[Grid], None], folder: RunFolder, _: Surroundings) -> None:
        with ExitStack() as stack:
            remotes = {
                name: stack.enter_context(RemoteCustodian(ours.socket(name), START_S))
                for name in names
            }
            relay = make_relay(lambda at: remotes[str(at.node_config["hospital"])])
            context = Context(1, 0, {}, RecordDict(), {})
            make_server_app(main)(InProcessGrid(relay, dict(enumerate(names, 100))), context)

    with Workbench() as workbench:
        outcome = execute(ours.folder, Stage(workbench=workbench, engine=engine))
    assert [len(record.answers) for record in outcome.records] == [2, 2]
    assert ours.stop() == dict.fromkeys(names, 0)
    assert ours.ends[names[0]] == [-signal.SIGKILL]
    found, expected = (
        load_checkpoint(folder.path / "checkpoint").arrays for folder in (ours.folder, reference)
    )
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    for name in names:
        assert charged(ours.folder, name) == [1, 2]


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.parametrize(
    ("dying", "end"),
    [
        ("before the answer is stored", -signal.SIGKILL),
        pytest.param("stop in training", 0, marks=pytest.mark.deployment),
    ],
)
def test_a_custodian_that_ends_in_a_round_charges_once_and_answers_the_same_ever_after(
    processes: Callable[..., Processes], dying: str, end: int
) -> None:
    """Killed, or stopped while a step will not end."""
    ours = processes("private")
    folder, name = ours.folder, ours.folder.facts.hospitals[0]
    plan, block = a_plan(folder, name)
    sealed = seal_bytes(plan.to_bytes(), folder.coordinator_key, "plan")
    ours.start(name, dying=(dying, "1"))
    ours.watch(name)
    with RemoteCustodian(ours.socket(name), START_S) as remote:
        first = remote.train(sealed, block)  # cut off, then made again at the next process
        assert ours.ends[name] == [end]
        assert remote.train(sealed, block) == first
        forged = seal_bytes(plan.to_bytes(), SigningKey.generate(), "plan")
        refusal = opened(folder, name, remote.train(forged, block))
    update = opened(folder, name, first)
    assert update["kind"] == "update"
    assert update["plan_sha256"] == plan.sha256
    assert refusal["kind"] == "refusal"
    assert refusal["error"] == "UntrustedPeer"
    out = ours.running[name].stdout
    assert out is not None
    assert json.loads(out.readline()) == {"ready": name, "public_key": folder.facts.members[name]}
    assert ours.stop() == {name: 0}
    assert charged(folder, name) == [1]


def a_plan(folder: RunFolder, name: str) -> tuple[RoundPlan, bytes]:
    """The study's first plan for a hospital, whole, and the arrays it names."""
    study = folder.study
    with Workbench() as workbench:
        prepare(study, workbench)
        block = encode({"kind": "global"}, workbench.first_values())
    plan = replace(
        first_plan(study, name, folder.facts.noise_multiplier, 60),
        run="run-1",
        arrays_sha256=sha256(block),
        adapter=study.adapter,
        training=study.training,
        task_config=study.task,
    )
    return plan, block


def opened(folder: RunFolder, name: str, reply: bytes) -> dict[str, Any]:
    """Header of a reply signed by this hospital."""
    return decode(open_bytes(reply, folder.facts.members[name], "reply"), "reply")[0]
