"""Studies whose coordinator sees sums only: end to end, with hospitals that fall silent."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Context, RecordDict
from flwr.serverapp import Grid

from wardround.client.custodian import Custodian, Surroundings
from wardround.client.relay import make_relay
from wardround.client.workbench import Workbench
from wardround.privacy.secagg.lattice import lattice_for
from wardround.privacy.secagg.requests import read_request
from wardround.server.app import make_server_app
from wardround.server.coordinator import RoundFailed
from wardround.strategies.checkpoint import load_checkpoint
from wardround.study.config import Study
from wardround.study.engines.in_process import InProcessGrid, run_in_process
from wardround.study.local import begin
from wardround.study.publishing import privacy_note
from wardround.study.run_folder import RunFolder
from wardround.study.runner import Outcome, Stage, execute

Command = Callable[..., Any]
SECURE = "\nsecure_aggregation = true\nthreshold = 3\n"
SHARED = SECURE + 'mode = "distributed"\nhonest_hospitals = 3\n'


class Silent:
    """A custodian behind a relay that dies before some stage of every round."""

    def __init__(self, custodian: Custodian, stage: str) -> None:
        self._custodian = custodian
        self._stage = stage

    def declare(self) -> bytes:
        return self._custodian.declare()

    def train(self, plan: bytes, arrays: bytes) -> bytes:
        raise ConnectionError("gone")

    def secure_sum(self, request: bytes, arrays: bytes) -> bytes:
        stage, _, _ = read_request(request, self._custodian.hospital.coordinator)
        if stage == self._stage:
            raise ConnectionError("gone")
        return self._custodian.secure_sum(request, arrays)


def engine_without(silent: dict[str, str]) -> Any:
    """The in-process engine, with some hospitals falling silent before a stage."""

    def run(main: Callable[[Grid], None], folder: RunFolder, around: Surroundings) -> None:
        names = dict(enumerate(folder.facts.hospitals, 100))
        context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={})
        with ExitStack() as stack:
            services: dict[str, Any] = {}
            for name in names.values():
                custodian = Custodian(folder.hospital(name), around)
                stack.callback(custodian.close)
                stage = silent.get(name)
                services[name] = custodian if stage is None else Silent(custodian, stage)
            relay = make_relay(lambda at: services[str(at.node_config["hospital"])])
            make_server_app(main)(InProcessGrid(relay, names), context)

    return run


def change_study(path: Path, privacy: str, **replacements: str) -> Path:
    """The small study with four hospitals and these settings in ``[privacy]``."""
    text = path.read_text(encoding="utf-8").replace("count = 2", "count = 4")
    text = text.replace("rounds = 2", "rounds = 1").replace("[privacy]", "[privacy]" + privacy)
    for pattern, new in replacements.items():
        text = re.sub(rf"{pattern} = .*", new, text)
    target = path.with_name(f"study-{len(list(path.parent.iterdir()))}.toml")
    target.write_text(text, encoding="utf-8")
    return target


def run(path: Path, runs: Path, workbench: Workbench, engine: Any = run_in_process) -> Outcome:
    workbench.clear()  # so that every run starts from the same adapter
    folder = begin(Study.read(path), runs, None, workbench)
    return execute(folder, Stage(workbench=workbench, engine=engine))


@pytest.fixture(scope="module")
def workbench() -> Any:
    with Workbench() as bench:
        yield bench


def final(outcome: Outcome) -> dict[str, torch.Tensor]:
    return dict(load_checkpoint(outcome.folder / "checkpoint").arrays)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["", "masked", "reveal"])
def test_the_model_is_that_of_plain_updates_to_the_lattice_bound(
    small_study: Path, tmp_path: Path, workbench: Workbench, stage: str
) -> None:
    """Mode none repeats its rounds, so the oracle is the same study without a secure sum.

    Whoever falls silent before its row is sent is missing from both; later, from neither.
    """
    bare = {"noise_multiplier": 'mode = "none"'}
    silent = {"hospital-4": stage} if stage else {}
    missing = {"hospital-4": ""} if stage == "masked" else {}
    secure = run(
        change_study(small_study, SECURE, **bare), tmp_path / "a", workbench, engine_without(silent)
    )
    plain = run(
        change_study(small_study, "", **bare), tmp_path / "b", workbench, engine_without(missing)
    )
    slack = lattice_for(8.0, 32, 4).step / 2 + 2.0**-23  # and float32, of numbers below 1
    for name, array in final(plain).items():
        assert float((final(secure)[name] - array).abs().max()) <= slack
    (record,) = secure.records
    answered = {a.hospital for a in record.answers if a.report is not None}
    assert answered == {f"hospital-{i}" for i in range(1, 5)} - set(missing)


@pytest.mark.slow
def test_below_the_threshold_the_round_fails_and_nothing_is_known(
    small_study: Path, tmp_path: Path, workbench: Workbench
) -> None:
    path = change_study(small_study, SECURE)
    silent = engine_without({"hospital-3": "masked", "hospital-4": "masked"})
    with pytest.raises(RoundFailed, match=r"2 hospitals sent an update; the threshold is 3"):
        run(path, tmp_path, workbench, silent)
    (folder,) = (p for p in tmp_path.iterdir() if (p / "run.json").exists())
    assert not list((folder / "rounds").glob("[0-9]*.json"))
    # The same run goes on once they are back: another attempt, the same updates, no new charge.
    again = execute(RunFolder.open(folder), Stage(workbench=workbench))
    assert len(again.records[0].answers) == 4
    ledger = (folder / "hospitals" / "hospital-1" / "ledger" / "ledger.jsonl").read_text("utf-8")
    assert ledger.count('"kind":"reserve"') == 1


@pytest.mark.slow
def test_a_coordinator_killed_after_the_sum_opens_it_again(
    small_study: Path, tmp_path: Path, workbench: Workbench
) -> None:
    """Hospitals open one sum a round; the session on disk is what the resumed run goes on with."""

    def killed(main: Any, folder: RunFolder, around: Surroundings) -> None:
        def then_die(grid: Grid) -> None:
            from wardround.server import coordinator

            def die(*args: Any) -> None:
                raise KeyboardInterrupt

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(coordinator, "save_checkpoint", die)
                main(grid)

        run_in_process(then_die, folder, around)

    path = change_study(small_study, SECURE)
    with pytest.raises(KeyboardInterrupt):
        run(path, tmp_path, workbench, killed)
    (folder,) = (p for p in tmp_path.iterdir() if (p / "run.json").exists())
    again = execute(RunFolder.open(folder), Stage(workbench=workbench))
    assert all(answer.report is not None for answer in again.records[0].answers)


@pytest.mark.slow
def test_distributed_noise_end_to_end(
    small_study: Path, tmp_path: Path, workbench: Workbench
) -> None:
    one_step = {"steps_per_round": "steps_per_round = 1", "optimizer": 'optimizer = "sgd"'}
    path = change_study(small_study, SHARED, **one_step)
    policy = path.with_name("policy.toml")
    text = policy.read_text("utf-8").replace("[allow]", "[allow]\nhonest_hospitals = 3")
    policy.write_text(text, "utf-8")
    outcome = run(path, tmp_path, workbench, engine_without({"hospital-2": "reveal"}))
    note = privacy_note(RunFolder.open(outcome.folder), outcome.records)
    assert "counting on the noise of 3 hospitals" in note
    for report in outcome.last_reports.values():
        assert report["mode"] == "distributed"
        rows = {row["relies_on"]: row["epsilon_study"] for row in report["guarantees"]}
        assert rows[3] == report["epsilon_study"] < rows[2] < rows[1]


@pytest.mark.parametrize(
    ("privacy", "replaced", "says"),
    [
        ("\nsecure_aggregation = true\n", {}, "threshold go together"),
        ("\nthreshold = 3\n", {}, "threshold go together"),
        ('\nmode = "distributed"\n', {}, "needs secure_aggregation = true"),
        (SECURE + 'mode = "distributed"\n', {}, "say with honest_hospitals"),
        (SECURE + "honest_hospitals = 2\n", {}, "goes with mode = 'distributed'"),
        (SECURE.replace("3", "2"), {}, "threshold is 2; it must be at least 3"),
        (SECURE.replace("3", "5"), {}, "threshold is 5"),
        (SHARED, {}, "steps is 2; it must be 1"),
        (SHARED, {"steps_per_round": "steps_per_round = 1"}, "it must be 'sgd'"),
    ],
)
def test_studies_that_cannot_be_summed_are_refused(
    wardround: Command, small_study: Path, tmp_path: Path, privacy: str,
    replaced: dict[str, str], says: str,
) -> None:  # fmt: skip
    ended = wardround("run", change_study(small_study, privacy, **replaced), "--runs", tmp_path)
    assert ended.code == 2
    assert says in " ".join(ended.err.split())


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ('name = "fedex"', "does not work under secure aggregation"),
        ('name = "fedavg"\nencoding = "int8"', "encoding is 'int8'"),
        ('name = "fedavg"\nrobust = "krum"', "secure"),
    ],
)
def test_strategies_that_need_single_updates_are_refused(
    wardround: Command, small_study: Path, tmp_path: Path, table: str, says: str
) -> None:
    path = change_study(small_study, SECURE)
    path.write_text(path.read_text("utf-8").replace('name = "fedavg"', table), "utf-8")
    ended = wardround("run", path, "--runs", tmp_path)
    assert ended.code == 2
    assert says in " ".join(ended.err.split())
