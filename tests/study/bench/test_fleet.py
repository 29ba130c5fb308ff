"""The stub hospitals of ``bench load`` are taken for real ones, so the load is what it would be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, RecordDict
from flwr.serverapp import Grid
from safetensors import safe_open

from wardround.client.relay import make_relay
from wardround.client.workbench import Workbench
from wardround.server.app import make_server_app
from wardround.server.book import read_book
from wardround.study.bench.fleet import Fleet, Node, Stub
from wardround.study.config import Study
from wardround.study.engines.in_process import InProcessGrid
from wardround.study.local import begin
from wardround.study.publishing import publish
from wardround.study.run_folder import RunFolder
from wardround.study.runner import Stage, execute


def test_a_coordinator_takes_stubs_for_hospitals(small_study: Path, tmp_path: Path) -> None:
    """Signed, reported on and of the right shape; and the model stays as it was."""

    def engine(rounds: Callable[[Grid], None], folder: RunFolder, _: object) -> None:
        names = folder.facts.hospitals
        keys = [folder.hospital(name).key for name in names]
        nodes = [Node(name, "", str(key), "") for name, key in zip(names, keys, strict=True)]
        told = Fleet("", "", folder.facts.coordinator, 60, 1e-5, nodes)
        fleet = Fleet.from_json(told.to_json())
        stubs = {node.hospital: Stub(fleet, node) for node in fleet.nodes}
        relay = make_relay(lambda at: stubs[str(at.node_config["hospital"])])
        grid = InProcessGrid(relay, dict(enumerate(names, 100)))
        make_server_app(rounds)(grid, Context(1, 0, {}, RecordDict(), {}))

    with Workbench() as workbench:
        folder = begin(Study.read(small_study), tmp_path / "runs", None, workbench)
        outcome = execute(folder, Stage(workbench=workbench, engine=engine))
        publish(folder, outcome, workbench)
    records = read_book(folder.path / "rounds")
    assert len(records) == 2
    for answer in (answer for record in records for answer in record.answers):
        assert answer.report is not None, answer.reason
        assert answer.report["events_life"]["count"] == 2 * answer.report["round"]
    with safe_open(folder.path / "adapter" / "adapter_model.safetensors", "pt") as adapter:
        grown = [name for name in adapter.keys() if "lora_B" in name]  # noqa: SIM118 - no mapping
        assert grown
        assert not any(bool(adapter.get_tensor(name).any()) for name in grown)
