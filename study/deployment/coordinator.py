"""The coordinator's processes: SuperLink, its executor, and the proxy in front of the Fleet API."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from wardround.privacy.errors import BadInput, WardroundError
from wardround.study.deployment.fleet_proxy import FleetProxy
from wardround.study.deployment.loopback import HOST, LoopbackTls, make_loopback_tls
from wardround.study.deployment.processes import flower, listens
from wardround.study.deployment.shipping import write_bundle
from wardround.study.deployment.superlink import CONNECTION, SuperLink, flower_document
from wardround.study.deployment.supervision import Service
from wardround.study.provisioning.consortium import Consortium
from wardround.study.provisioning.keys import make_private_folder
from wardround.study.provisioning.roster import ConsortiumFolder, read_roster

if TYPE_CHECKING:
    from wardround.study.run_folder import RunFolder

UNKNOWN = "unknown"
_FORGOTTEN = "Run ID not found"  # Flower's words


@dataclass(frozen=True)
class CoordinatorPlace:
    """A coordinator's folder with room for what runs there.

    Attributes:
        consortium: Keys, certificates and roster.
        superlink_port: Where the SuperLink listens on loopback; hospitals never connect there
            unless there is no proxy.
        listen: Address the proxy binds; ports and names are the consortium file's.
    """

    consortium: ConsortiumFolder
    superlink_port: int
    listen: str = HOST

    @property
    def run(self) -> Path:
        """Logs, sockets and Flower's own files."""
        return self.consortium.path.resolve() / "run"

    @property
    def home(self) -> Path:
        """Flower's folder, with the connection of the command line."""
        return self.run / "flower"

    @property
    def terms(self) -> Consortium:
        """The consortium file."""
        return Consortium.read(self.consortium.terms)


def coordinator_services(
    place: CoordinatorPlace, now: datetime, nginx: str | None = None
) -> tuple[list[Service], list[str]]:
    """Services in their order, and what has to be said about them.

    Args:
        place: The folder.
        now: Dates the certificate for loopback.
        nginx: Path of nginx; without one nobody but this machine can connect.

    Raises:
        BadInput: Without nginx the consortium must be one of this machine.
    """
    found = place.consortium
    for folder in (place.run, place.home):
        make_private_folder(folder)
    terms = place.terms.coordinator
    inner = make_loopback_tls(place.run, now)
    if nginx is None:
        if HOST not in terms.hosts:
            raise BadInput(
                f"nginx is not installed, so the SuperLink is bound to {HOST} alone, and "
                f"{found.terms} [coordinator] hosts does not name {HOST}; install nginx"
            )
        inner = LoopbackTls(found.server.resolve(), found.authority.resolve())
    port = place.superlink_port if nginx else terms.port
    superlink = SuperLink(HOST, port, inner, found.secret.resolve(), place.home)
    superlink.write_connection()
    services = [superlink.service(lambda: node_keys(found)), _executor(place, port, inner)]
    if nginx is None:
        return services, [
            f"nginx is not installed: no proxy. The SuperLink, its Control API included, is bound "
            f"to {HOST}:{port}; only this machine can connect"
        ]
    proxy = FleetProxy(
        f"{place.listen}:{terms.port}",
        found.server.resolve(),
        f"{HOST}:{port}",
        "localhost",
        inner.authority,
    )
    services.append(
        Service(
            "fleet-proxy",
            [nginx, "-p", str(place.run), "-c", str(proxy.write(place.run))],
            after=("superlink",),
            ready=listens(place.listen, terms.port),
        )
    )
    return services, [f"hospitals connect to {place.listen}:{terms.port}, the Fleet API alone"]


def _executor(place: CoordinatorPlace, port: int, tls: LoopbackTls) -> Service:
    command = [
        *flower("flower-superexec"),
        "--runtime-api-address", f"{HOST}:{port}",
        "--root-certificates", str(tls.authority),
        "--superexec-auth-secret-file", str(place.consortium.secret.resolve()),
    ]  # fmt: skip
    return Service("superexec", command, after=("superlink",))


def node_keys(found: ConsortiumFolder) -> list[Path]:
    """Files of the public node keys of everybody on the roster."""
    return [found.node(member.hospital) for member in read_roster(found).members]


def start_run(place: CoordinatorPlace, folder: RunFolder, patience_s: float) -> str:
    """Hand a run to the SuperLink; its identifier there.

    Args:
        place: Where the SuperLink is.
        folder: The run.
        patience_s: A message that nobody has answered for so long is sent again.

    Raises:
        WardroundError: The SuperLink cannot be reached or refused it.
    """
    bundle = place.run / "bundle"
    shutil.rmtree(bundle, ignore_errors=True)
    write_bundle(bundle)
    settings: dict[str, str | float] = {
        "run-folder": str(folder.path.resolve()),
        "patience-s": float(patience_s),
    }
    return start_bundle(place, bundle, settings)


def start_bundle(place: CoordinatorPlace, bundle: Path, settings: Mapping[str, str | float]) -> str:
    """Hand an app's folder to the SuperLink; the identifier of its run there.

    Raises:
        WardroundError: The SuperLink cannot be reached or refused it.
    """
    given = " ".join(f"{name}={json.dumps(value)}" for name, value in settings.items())
    command = [*flower("flwr"), "run", str(bundle), CONNECTION, "-c", given]
    said = flower_document(place.home, command)
    if not said.get("run-id"):  # Flower exits with 0 also when it reached nobody
        raise WardroundError(f"the SuperLink took no run: {said.get('error-message', said)}")
    return str(said["run-id"])


def run_status(place: CoordinatorPlace, identifier: str) -> str:
    """How a run stands at the SuperLink, as Flower writes it: ``finished:completed``, say.

    ``UNKNOWN`` when the SuperLink has never heard of it, as one that was started again.

    Raises:
        WardroundError: The SuperLink cannot be reached.
    """
    said = flower_document(
        place.home, [*flower("flwr"), "list", CONNECTION, "--run-id", identifier]
    )
    if _FORGOTTEN in str(said.get("error-message")):
        return UNKNOWN
    runs = said.get("runs", [])
    if not runs:  # Flower may exit with 0 all the same
        raise WardroundError(f"the SuperLink did not answer: {said.get('error-message', said)}")
    return str(runs[0]["status"])
