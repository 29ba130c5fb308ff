"""Flower's own simulation: the same ServerApp and relays, hospitals spread over Ray processes.

An optional extra (``pip install 'wardround[ray]'``). A worker serves any hospital, so a custodian
is opened for one message and closed again; its ledger is on disk either way. Worth its start-up
only past one machine.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable
from functools import cache

from flwr.app import Context
from flwr.serverapp import Grid

from wardround.client.custodian import Custodian, Surroundings
from wardround.client.hospital import Hospital
from wardround.client.relay import make_relay
from wardround.client.workbench import Workbench
from wardround.privacy.errors import BadInput, WardroundError
from wardround.privacy.plan import RoundPlan
from wardround.privacy.stream import SecureStream
from wardround.server.app import make_server_app
from wardround.study.run_folder import RunFolder

_START_TIMEOUT_S = 300.0
_POLL_S = 0.1


class VisitingCustodian:
    """Opens the hospital's custodian for one request."""

    def __init__(self, hospital: Hospital, stream: Callable[[RoundPlan], SecureStream]) -> None:
        self._hospital = hospital
        self._stream = stream

    def declare(self) -> bytes:
        """A signed declaration."""
        custodian = self._open()
        try:
            return custodian.declare()
        finally:
            custodian.close()

    def train(self, sealed_plan: bytes, arrays_block: bytes) -> bytes:
        """A signed update or a signed refusal."""
        custodian = self._open()
        try:
            return custodian.train(sealed_plan, arrays_block)
        finally:
            custodian.close()

    def secure_sum(self, sealed_request: bytes, arrays_block: bytes) -> bytes:
        """A signed answer to one stage of a secure sum, or a signed refusal."""
        custodian = self._open()
        try:
            return custodian.secure_sum(sealed_request, arrays_block)
        finally:
            custodian.close()

    def _open(self) -> Custodian:
        return Custodian(self._hospital, Surroundings(_workbench(), self._stream))


def _with_all_nodes(
    grid: Grid,
    nodes: int,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Grid:
    """The grid, once every node is there: Flower starts the server before Ray has its workers.

    Raises:
        WardroundError: They did not all come in time.
    """
    deadline = clock() + _START_TIMEOUT_S
    while (found := len(list(grid.get_node_ids()))) < nodes:
        if clock() > deadline:
            raise WardroundError(f"{found} of {nodes} nodes came within {_START_TIMEOUT_S:g} s")
        sleep(_POLL_S)
    return grid


@cache
def _workbench() -> Workbench:
    """One a worker process, so that a base is loaded once in each."""
    return Workbench()


def run_in_ray(main: Callable[[Grid], None], folder: RunFolder, surroundings: Surroundings) -> None:
    """Run ``main`` as a ServerApp under Flower's simulation; one virtual SuperNode a hospital.

    Steps inside a worker are not shown, and each worker has a workbench of its own: of
    ``surroundings`` only the streams travel.

    Raises:
        BadInput: The extra is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise BadInput("--engine ray needs Flower's simulation: pip install 'wardround[ray]'")
    from flwr.simulation import run_simulation

    hospitals = [folder.hospital(name) for name in folder.facts.hospitals]
    stream = surroundings.stream

    def connect(context: Context) -> VisitingCustodian:
        hospital = hospitals[int(str(context.node_config["partition-id"]))]
        return VisitingCustodian(hospital, stream)

    # Ray reports usage to its makers unless told not to.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    run_simulation(
        server_app=make_server_app(lambda grid: main(_with_all_nodes(grid, len(hospitals)))),
        client_app=make_relay(connect),
        num_supernodes=len(hospitals),
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"log_to_driver": False, "include_dashboard": False},
        },
    )
