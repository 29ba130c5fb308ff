"""Many hospitals in one process, as a coordinator sees them: thin nodes with a stub for custodian.

Each node has a thread, a TLS connection from an address of its own, its own node key, Flower's
Fleet protocol and our relay; behind it a stub signs a declaration, and for every plan an update of
zeros with a true report. So all that reaches the coordinator is as it would be. Not there: the
processes SuperNode, relay and custodian, data, policy, ledger and training.
"""

from __future__ import annotations

import json
import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context, Error, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.clientapp import ClientApp
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import (
    pull_and_inflate_object_from_tree,
    push_objects,
)
from flwr.supercore.run import RunNotRunningException
from flwr.supernode.fleet_http_connection import http_request_response

from wardround.client.custody.supernode import Pace
from wardround.client.relay import CustodianService, make_relay
from wardround.privacy.accountant import epsilon
from wardround.privacy.chain import LedgerHead
from wardround.privacy.envelope import open_bytes, seal_bytes
from wardround.privacy.errors import BadMessage
from wardround.privacy.events import Event, compose
from wardround.privacy.plan import RoundPlan, plan_from_json
from wardround.privacy.report import Standing, hospital_report, sign_report
from wardround.privacy.signing import SigningKey
from wardround.strategies.codec import decode, encode

log = logging.getLogger("wardround.fleet")

_IDLE_S = 3.0  # what Flower's SuperNode sleeps between two looks
_RAISED = 2
_BUDGET = 8.0


@dataclass(frozen=True)
class Node:
    """One hospital of a fleet.

    Attributes:
        hospital: Its name.
        key: File of its node key.
        signing: File of its signing key.
        address: Where it connects from.
    """

    hospital: str
    key: str
    signing: str
    address: str


@dataclass(frozen=True)
class Fleet:
    """Everything the process is told.

    Attributes:
        superlink: Where the nodes connect.
        authority: File of the certificate it is checked with.
        coordinator: Public key that plans are signed with.
        units: What each hospital declares.
        delta: What epsilon is computed at.
        nodes: The hospitals.
    """

    superlink: str
    authority: str
    coordinator: str
    units: int
    delta: float
    nodes: Sequence[Node]

    def to_json(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Fleet:
        """What ``to_json`` wrote."""
        tables = json.loads(text)
        return cls(**tables | {"nodes": [Node(**table) for table in tables["nodes"]]})


class Stub:
    """Answers as a custodian does that learnt nothing; a ``CustodianService``."""

    def __init__(self, fleet: Fleet, node: Node) -> None:
        self._fleet = fleet
        self._name = node.hospital
        self._key = SigningKey.load_or_create(Path(node.signing))

    def declare(self) -> bytes:
        """A signed declaration."""
        return self._sign({"kind": "declaration", "declared_units": self._fleet.units}, {})

    def train(self, sealed_plan: bytes, arrays_block: bytes) -> bytes:
        """A signed update of zeros with a report on it."""
        document = json.loads(open_bytes(sealed_plan, self._fleet.coordinator, "plan"))
        plan = plan_from_json(document)
        _, arrays = decode(arrays_block, "arrays")
        zeros = {name: torch.zeros_like(array) for name, array in arrays.items()}
        return self._sign(
            {
                "kind": "update",
                "run": plan.run,
                "round": plan.round,
                "plan_sha256": plan.sha256,
                "report": self._report(plan),
            },
            {name: zeros[name] for name in plan.trains or zeros},
        )

    def secure_sum(self, sealed_request: bytes, arrays_block: bytes) -> bytes:
        """Not asked for in this study."""
        raise BadMessage("a stub takes no part in secure sums")

    def _report(self, plan: RoundPlan) -> dict[str, Any]:
        """What a custodian would report that was charged in every round so far."""
        spent = compose(*[plan.privacy.event] * plan.round)
        standing = Standing(
            hospital=self._name,
            dataset="none",
            provenance="generated",
            declared_units=self._fleet.units,
            epsilon_budget=_BUDGET,
            delta=self._fleet.delta,
            study=spent,
            life=spent,
            ledger_head=LedgerHead(2 * plan.round, plan.sha256),
        )
        return sign_report(hospital_report(plan, standing, _epsilon), self._key)

    def _sign(self, header: Mapping[str, Any], arrays: Mapping[str, torch.Tensor]) -> bytes:
        named = {"hospital": self._name, "key": self._key.public, **header}
        return seal_bytes(encode(named, dict(arrays)), self._key, "reply")


@lru_cache(maxsize=64)
def _epsilon(event: Event, delta: float) -> float:
    """The same for every hospital, so it is computed once a round."""
    return epsilon(event, delta)


def stay(fleet: Fleet, node: Node, app: ClientApp, stop: threading.Event) -> None:
    """Be one hospital's node until ``stop``."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    _SOURCE.address = node.address
    key: Any = load_ssh_private_key(Path(node.key).read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BadMessage(f"{node.key}: no node key")
    pace = Pace()
    with http_request_response(
        fleet.superlink, False, fleet.authority, authentication_keys=(key, key.public_key())
    ) as connection:
        while not stop.is_set():
            try:
                answered = _look(connection, app)
            except RunNotRunningException:
                answered = False
            pace.sleep(0.0 if answered else _IDLE_S)


def _look(connection: Any, app: ClientApp) -> bool:
    """Fetch one message and answer it; False when there was none."""
    node, receive, send, _, _, pull_object, push_object, confirm = connection
    found = receive()
    if found is None:
        return False
    started = time.monotonic()
    run = found[0].metadata.run_id
    message = pull_and_inflate_object_from_tree(
        found[1],
        lambda identifier: pull_object(run, identifier),
        lambda identifier: confirm(run, identifier),
        return_type=Message,
    )
    message.metadata.__dict__["_message_id"] = found[1].object_id
    try:
        reply = app(message, Context(run, node, {}, RecordDict(), {}))
    except Exception as error:
        log.exception("not answered")
        reply = Message(Error(_RAISED, type(error).__name__), reply_to=message)
    reply.metadata.__dict__["_message_id"] = reply.object_id
    with no_object_id_recompute():
        tree = get_object_tree(reply)
        wanted, session = send(remove_content_from_message(reply), tree, time.monotonic() - started)
        push_objects(
            get_all_nested_objects(reply),
            lambda identifier, content: push_object(run, session, identifier, content),
            object_ids_to_push=wanted,
        )
    return True


_SOURCE = threading.local()


def connect_from_own_addresses() -> None:
    """Let each thread connect from its own address: the proxy counts requests by address."""
    connect = socket.create_connection

    def from_here(
        address: Any, timeout: Any = None, source_address: Any = None, **more: Any
    ) -> Any:
        here = getattr(_SOURCE, "address", None)
        return connect(address, timeout, (here, 0) if here else source_address, **more)

    socket.create_connection = from_here


def _same(stub: CustodianService, context: Context) -> CustodianService:
    """The custodian of a node, whatever Flower says of it."""
    return stub


def main(text: str) -> None:
    """Run a fleet until SIGTERM."""
    logging.getLogger("httpx").setLevel(logging.WARNING)
    fleet, stop = Fleet.from_json(text), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    connect_from_own_addresses()
    stubs: Iterable[tuple[Node, CustodianService]] = [(n, Stub(fleet, n)) for n in fleet.nodes]
    threads = [
        threading.Thread(
            target=stay,
            args=(fleet, node, make_relay(partial(_same, stub)), stop),
            daemon=True,
        )
        for node, stub in stubs
    ]
    for thread in threads:
        thread.start()
    stop.wait()
    for thread in threads:
        thread.join(10)


if __name__ == "__main__":
    main(Path(sys.argv[1]).read_text(encoding="utf-8"))
