"""A hospital's processes: custodian first, then SuperNode, then relay.

Only the custodian is told where records, policy and ledger are; only the SuperNode where the node
key is. With isolation the operating system enforces that too.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from wardround.client.custody.calling import RemoteCustodian
from wardround.client.custody.place import UnixSocket
from wardround.privacy.disk import Disk
from wardround.privacy.errors import BadInput
from wardround.study.deployment.isolation import (
    Users,
    isolate,
    require_closed,
    require_isolation,
    require_program,
    require_readable,
)
from wardround.study.deployment.loopback import HOST, LoopbackTls, make_loopback_tls
from wardround.study.deployment.namespaces import closed_network
from wardround.study.deployment.processes import PYTHON, flower, listens, write_programs
from wardround.study.deployment.shipping import bundle_sha256
from wardround.study.deployment.supervision import Service
from wardround.study.provisioning.hospital import HospitalFolder, installed_kit
from wardround.study.provisioning.keys import make_private_folder, read_private, write_private

RELAYS = ("resident", "flower")
# Folders of a hospital's folder that its custodian writes; it writes nothing else there.
WRITTEN = ("ledger", "secure-sums", "optimizer", "personal", "labels")
SUPERNODE = (PYTHON, "-P", "-m", "wardround.client.custody.supernode")


@dataclass(frozen=True)
class HospitalPlace:
    """A hospital's folder with room for what runs there.

    Attributes:
        folder: Keys, certificates and kit; the ledger grows here.
        policy: The policy file.
        records: The data.
        node_port: Where the SuperNode's Runtime API listens on loopback.
        relay: ``resident``, or ``flower`` for Flower's own executor.
        bundles: Allow-list of app bundles; the one of this version without.
        seed: Repeats rounds of mode none; it cannot draw noise.
        device: Where the custodian trains.
    """

    folder: HospitalFolder
    policy: Path
    records: Path
    node_port: int
    relay: str = "resident"
    bundles: Path | None = None
    seed: int | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.relay not in RELAYS:
            raise BadInput(f"--relay is {self.relay!r}; expected one of {', '.join(RELAYS)}")
        for option, path in (("--policy", self.policy), ("--records", self.records)):
            if not path.exists():
                raise BadInput(f"{option}: {path}: no such file or folder")

    @property
    def run(self) -> Path:
        """Logs, socket and Flower's own files."""
        return self.folder.path.resolve() / "run"

    @property
    def socket(self) -> Path:
        """The custodian's socket, in a folder of its own."""
        return self.run / "custodian" / "socket"

    @property
    def homes(self) -> Path:
        """With isolation, a private folder for each user."""
        return self.run / "home"

    @property
    def allowed(self) -> Path:
        """The allow-list of bundles."""
        return (self.bundles or self.run / "bundles.txt").resolve()


def hospital_services(place: HospitalPlace, now: datetime) -> list[Service]:
    """Services in their order, all run by the same user.

    Raises:
        BadInput: No kit is installed.
    """
    return _services(place, now, place.folder.secret.resolve())


def isolated_services(place: HospitalPlace, now: datetime, users: Users) -> list[Service]:
    """The same services, each with a user, processes and a network of its own.

    What is in the hospital's folder is given to who needs it; the records are only looked at.

    Raises:
        BadInput: No kit is installed.
        IsolationImpossible: The system cannot do it, or somebody may read too much or too little.
    """
    require_isolation()
    users.make()
    secret, programs = place.run / "relay.secret", place.run / "programs"
    services = _services(place, now, secret)
    write_programs(programs)
    _hand_out(place, users, secret)
    for path in (programs, *programs.iterdir()):
        path.chmod(0o755)
    require_program(users, [PYTHON, "-P", "-c", "import wardround.client.custody.wire"])
    for path in (place.records, place.policy):
        require_readable(users, "custodian", path.resolve())
    for role in ("node", "relay"):
        require_closed(users, role, place.records.resolve())
    require_readable(users, "relay", place.allowed)
    network = closed_network(HOST, place.node_port)
    passage = Service(
        "passage",
        [PYTHON, "-P", "-m", "wardround.study.deployment.passage",
         str(network.listener), HOST, str(place.node_port)],
        descriptors=(network.listener,),
    )  # fmt: skip
    return isolate([passage, *services], users, network, place.homes, programs)


def _services(place: HospitalPlace, now: datetime, secret: Path) -> list[Service]:
    """Without isolation; ``secret`` is the relay's copy."""
    kit = installed_kit(place.folder)
    for folder in (place.run, place.run / "flower", place.run / "custodian"):
        make_private_folder(folder)
    if place.bundles is None:
        listed = f"{bundle_sha256()}  this version's own\n"
        Disk().write_file(place.allowed, listed.encode(), mode=0o644)
    inner = make_loopback_tls(place.run, now)
    superlink = f"{kit.hosts[0]}:{kit.port}"
    relay = _resident if place.relay == "resident" else executor
    node = supernode(place, superlink, inner, f'custodian="{place.socket}"')
    return [_custodian(place), node, relay(place, inner, secret)]


def _hand_out(place: HospitalPlace, users: Users, secret: Path) -> None:
    """Give every file of ours to the one user that needs it.

    Folders between are root's, and can be entered but not listed. Root writes and gives away only
    in those: in a folder of its own, a service that was taken over may have left links.
    """
    folder = place.folder
    for path in (folder.path, folder.signing.parent, place.run, place.homes):
        path.mkdir(exist_ok=True)
        shutil.chown(path, 0, 0)
        path.chmod(0o711)
    shutil.chown(folder.path, 0, users.of("custodian"))  # which may list it, and no more
    folder.path.chmod(0o751)
    for role in ("custodian", "node", "relay"):
        (place.homes / role).mkdir(exist_ok=True)
        users.own(place.homes / role, role, 0o700)
    write_private(secret, read_private(folder.secret))
    users.own(secret, "relay", 0o600)
    for path in (folder.node, folder.secret, place.run / "loopback.pem"):
        users.own(path, "node", 0o600)
    users.own(folder.signing, "custodian", 0o600)
    if folder.certificate.exists():
        users.own(folder.certificate, "custodian", 0o600)
    for name in WRITTEN:
        users.own_tree(folder.path / name, "custodian")
    users.own(place.socket.parent, "custodian", 0o2750, users.socket_group)


def _custodian(place: HospitalPlace) -> Service:
    command = [
        PYTHON, "-P", "-m", "wardround.study", "hospital", "custodian",
        str(place.folder.path.resolve()),
        "--policy", str(place.policy.resolve()),
        "--records", str(place.records.resolve()),
        "--socket", str(place.socket),
        "--device", place.device,
    ]  # fmt: skip
    if place.seed is not None:
        command += ["--seed", str(place.seed)]

    def ready() -> bool:
        with RemoteCustodian(UnixSocket(place.socket)) as custodian:
            return custodian.ready(1.0)

    return Service("custodian", command, ready=ready, stop_s=100.0)


def supernode(
    place: HospitalPlace,
    superlink: str,
    tls: LoopbackTls,
    settings: str,
    program: Sequence[str] = SUPERNODE,
) -> Service:
    """Exits at once when its key is registered late or its last session still counts (305/2004)."""
    command = [
        *program,
        "--superlink", superlink,
        "--root-certificates", str(place.folder.authority.resolve()),
        "--auth-supernode-private-key", str(place.folder.node.resolve()),
        "--host", HOST, "--port", str(place.node_port),
        "--isolation", "process",
        "--superexec-auth-secret-file", str(place.folder.secret.resolve()),
        "--ssl-certfile", str(tls.certificate),
        "--ssl-keyfile", str(tls.certificate),
        "--ssl-ca-certfile", str(tls.authority),
        "--node-config", settings,
    ]  # fmt: skip
    return Service(
        "supernode",
        command,
        after=("custodian",),
        takes_down=("relay",),
        ready=listens(HOST, place.node_port),
    )


def _resident(place: HospitalPlace, tls: LoopbackTls, secret: Path) -> Service:
    """When it ends unasked, its SuperNode waits for an answer for ever and has to go too."""
    command = [
        PYTHON, "-P", "-m", "wardround.study", "hospital", "relay",
        "--supernode", f"{HOST}:{place.node_port}",
        "--supernode-authority", str(tls.authority),
        "--secret", str(secret),
        "--socket", str(place.socket),
        "--allow", str(place.allowed),
    ]  # fmt: skip
    return Service("relay", command, after=("custodian", "supernode"), takes_down=("supernode",))


def executor(place: HospitalPlace, tls: LoopbackTls, secret: Path) -> Service:
    """Flower's own; it starts the bundle's ClientApp for every message."""
    command = [
        *flower("flower-superexec"),
        "--runtime-api-address", f"{HOST}:{place.node_port}",
        "--root-certificates", str(tls.authority),
        "--superexec-auth-secret-file", str(secret),
    ]  # fmt: skip
    return Service(
        "relay",
        command,
        after=("custodian", "supernode"),
        takes_down=("supernode",),
    )
