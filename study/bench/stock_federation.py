"""Flower alone, as its documentation has it, on this machine: what our deployment is compared with.

The same keys, TLS, node authentication and process isolation, the programs and polls that Flower
comes with, and no custodian: a node's app is told where the data is and reads it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from wardround.privacy.errors import WardroundError
from wardround.study.deployment.coordinator import (
    UNKNOWN,
    CoordinatorPlace,
    coordinator_services,
    run_status,
    start_bundle,
)
from wardround.study.deployment.hospital import HospitalPlace, executor, supernode
from wardround.study.deployment.loopback import HOST, make_loopback_tls
from wardround.study.deployment.processes import Launcher, flower, write_programs
from wardround.study.deployment.rehearsal import Rehearsal
from wardround.study.deployment.supervision import Service, Supervisor
from wardround.study.provisioning.hospital import HospitalFolder
from wardround.study.provisioning.keys import make_private_folder

STOCK_APP = Path(__file__).parent / "stock"
_DEFAULT_POLL = {"FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "1.0"}  # run_superexec.py of flwr 1.41
_ALIVE_S = 120.0
_LOOK_S = 2.0


@dataclass(frozen=True)
class StockFederation:
    """A federation that is up.

    Attributes:
        coordinator: Its folder.
        nodes: By hospital, the folder with logs of SuperNode and executor.
    """

    coordinator: CoordinatorPlace
    nodes: Mapping[str, Path]

    def run(self, app: Path, settings: Mapping[str, str | int], timeout_s: float) -> None:
        """Run an app to its end.

        Raises:
            WardroundError: It did not come to one.
        """
        identifier = start_bundle(self.coordinator, app, settings)
        wait_for_outcome(self.coordinator, identifier, timeout_s)


def wait_for_outcome(
    place: CoordinatorPlace,
    identifier: str,
    timeout_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return when the run of an app that keeps nothing, and so cannot go on, is completed.

    Raises:
        WardroundError: It failed, the SuperLink has forgotten it or cannot be reached, or it did
            not end within ``timeout_s``.
    """
    began = clock()
    while not (status := run_status(place, identifier)).startswith("finished"):
        if status == UNKNOWN:
            raise WardroundError(f"run {identifier}: the SuperLink has forgotten it")
        if clock() - began > timeout_s:
            raise WardroundError(f"run {identifier}: still {status} after {timeout_s:g} s")
        sleep(_LOOK_S)
    if status != "finished:completed":
        raise WardroundError(f"run {identifier}: {status}; superexec.log says why")


@contextmanager
def stock_federation(
    rehearsal: Rehearsal, names: Sequence[str], now: datetime
) -> Iterator[StockFederation]:
    """Everything up in folders that are provisioned; all stopped at the end."""
    place = CoordinatorPlace(rehearsal.consortium, rehearsal.ports.superlink)
    services, _ = coordinator_services(place, now, nginx=None)
    superlink = f"{HOST}:{rehearsal.ports.proxy}"
    with ExitStack() as stack:
        supervisors = [stack.enter_context(_alive([_stock(s) for s in services], place.run))]
        rehearsal.wait_until(lambda: supervisors[0].all_ready, "the SuperLink", _ALIVE_S)
        nodes = {}
        for index, name in enumerate(names):
            home = rehearsal.hospital(name)
            records = next(home.glob("records.*"))
            port = rehearsal.ports.node(index)
            there = HospitalPlace(HospitalFolder(home), home / "policy.toml", records, port)
            nodes[name] = there.run
            made = _node_services(there, superlink, now)
            supervisors.append(stack.enter_context(_alive(made, there.run)))
        rehearsal.wait_until(lambda: all(s.all_ready for s in supervisors), "the nodes", _ALIVE_S)
        yield StockFederation(place, nodes)


def _node_services(place: HospitalPlace, superlink: str, now: datetime) -> list[Service]:
    """SuperNode and executor; the node's app is told where the records are."""
    for folder in (place.run, place.run / "flower"):
        make_private_folder(folder)
    tls = make_loopback_tls(place.run, now)
    settings = f'data-path="{place.records.resolve()}"'
    node = supernode(place, superlink, tls, settings, flower("flower-supernode"))
    return [
        replace(_stock(node), after=()),
        replace(_stock(executor(place, tls, place.folder.secret.resolve())), after=(node.name,)),
    ]


def _stock(service: Service) -> Service:
    """The same service with the poll that Flower's executor has unless it is told another."""
    return replace(service, environment=_DEFAULT_POLL)


@contextmanager
def _alive(services: Sequence[Service], run: Path) -> Iterator[Supervisor]:
    """A supervisor in a thread of its own, as long as the block lasts."""
    write_programs(run / "flower" / "bin")
    supervisor = Supervisor(services, Launcher(run, run / "flower"))
    thread = threading.Thread(target=supervisor.run, name=f"supervisor {run}", daemon=True)
    thread.start()
    try:
        yield supervisor
    finally:
        supervisor.stop()
        thread.join()
