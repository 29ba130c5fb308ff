"""What the containers of ``docker-compose.yml`` are given: one file a purpose, one owner a file.

Every container runs as a user of its own, and what is mounted keeps its owner. So each private file
is copied for the one process that needs it and handed to that process's user, which takes root.
Certificates between neighbours are made here, for the names that the compose file gives them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from wardround.privacy.errors import BadInput
from wardround.study.deployment.fleet_proxy import FleetProxy, Pages
from wardround.study.deployment.loopback import LoopbackTls, write_tls
from wardround.study.deployment.shipping import bundle_sha256
from wardround.study.provisioning.consortium import Consortium
from wardround.study.provisioning.hospital import HospitalFolder, installed_kit
from wardround.study.provisioning.keys import read_private, write_private, write_public
from wardround.study.provisioning.roster import ConsortiumFolder, read_roster
from wardround.web.door import load_or_create_token

# As docker-compose.yml says them; a test compares both.
FLEET_PROXY, SUPERLINK, SUPEREXEC, DASHBOARD = 10001, 10002, 10003, 10004
FLEET_PORT, PAGES_PORT = 8443, 8050
_SUPERLINK_PORT = 8600
_SECRETS = Path("/run/secrets")
_PUBLIC = Path("/etc/wardround")
_SCRATCH = Path("/tmp")  # noqa: S108 - in the container, in memory and its own

Owner = Callable[[Path, int], None]


@dataclass(frozen=True)
class HospitalUsers:
    """Users of a hospital's three containers, one after the other.

    Attributes:
        first: The SuperNode's; the relay's and the custodian's follow.
    """

    first: int

    def __post_init__(self) -> None:
        if not 1 <= self.first < 2**31 - 2:
            raise BadInput(f"--user is {self.first}; expected a user number from 1 on, not root's")

    @property
    def supernode(self) -> int:
        """Reads the node key."""
        return self.first

    @property
    def relay(self) -> int:
        """Reads nothing but what it shares with the SuperNode."""
        return self.first + 1

    @property
    def custodian(self) -> int:
        """Owns everything else."""
        return self.first + 2


def give(path: Path, user: int) -> None:
    """Make ``user``, and the group of the same number, the owner of ``path``.

    Raises:
        BadInput: Only root may.
    """
    try:
        os.chown(path, user, user, follow_symlinks=False)
    except PermissionError as error:
        raise BadInput(
            f"{path}: only root can give a file to user {user}; run this command as root (sudo)"
        ) from error


def prepare_coordinator(
    found: ConsortiumFolder, runs: Path, now: datetime, owner: Owner = give
) -> Path:
    """Lay out ``containers/`` in the coordinator's folder, and ``runs``; where it is.

    Doing it again renews it: after a renewal of certificates, a new member, or within a year.

    Raises:
        BadInput: Nobody is enrolled, or this is not run as root.
    """
    members = read_roster(found).members
    if not members:
        raise BadInput(f"{found.roster}: nobody is enrolled; see wardround provision sign")
    port = Consortium.read(found.terms).coordinator.port
    if port != FLEET_PORT:
        raise BadInput(
            f"{found.terms} [coordinator] port is {port}; docker-compose.yml publishes {FLEET_PORT}"
        )
    out = _Layout(found.path / "containers", owner)
    out.start()
    inner = LoopbackTls(out.secret("superlink.pem"), out.public("superlink.crt"))
    write_tls(inner, ("superlink",), now)
    inner.authority.chmod(0o644)
    owner(inner.certificate, SUPERLINK)
    out.write_secret("server.pem", read_private(found.server), FLEET_PROXY)
    for name, user in (("superlink.secret", SUPERLINK), ("superexec.secret", SUPEREXEC)):
        out.write_secret(name, read_private(found.secret), user)
    load_or_create_token(out.secret("dashboard.token"))
    owner(out.secret("dashboard.token"), DASHBOARD)
    proxy = FleetProxy(
        f"0.0.0.0:{FLEET_PORT}",
        _SECRETS / "server.pem",
        f"superlink:{_SUPERLINK_PORT}",
        "superlink",
        _PUBLIC / "superlink.crt",
        Pages(f"0.0.0.0:{PAGES_PORT}", f"dashboard:{PAGES_PORT}"),
    )
    out.publish("nginx.conf", proxy.text(_SCRATCH).encode())
    nodes = out.public("nodes")
    shutil.rmtree(nodes, ignore_errors=True)
    nodes.mkdir()
    nodes.chmod(0o755)
    for member in members:
        out.publish(f"nodes/{member.hospital}.pub", found.node(member.hospital).read_bytes())
    _copy_for_the_executor(found, out, owner)
    runs.mkdir(parents=True, exist_ok=True)
    owner(runs, SUPEREXEC)
    return out.path


def _copy_for_the_executor(found: ConsortiumFolder, out: _Layout, owner: Owner) -> None:
    """Of the coordinator's folder, what it takes to make a run and sign its plans."""
    theirs = ConsortiumFolder(out.path / "superexec")
    write_private(theirs.signing, read_private(found.signing))
    for name in ("terms", "roster", "authority"):
        write_private(getattr(theirs, name), getattr(found, name).read_text(encoding="utf-8"))
    (theirs.path / "run").mkdir(exist_ok=True)
    give_all(theirs.path, SUPEREXEC, owner)


def prepare_hospital(
    folder: HospitalFolder, supernode: str, users: HospitalUsers, now: datetime, owner: Owner = give
) -> Path:
    """Lay out ``containers/`` in a hospital's folder and give the rest to its custodian.

    Args:
        folder: With an installed kit and ``policy.toml``.
        supernode: Name of the SuperNode's service, which its relay calls it by.
        users: As the compose file says them.
        now: Dates the certificate between the two.
        owner: Gives a file to a user.

    Raises:
        BadInput: No kit or policy is there, or this is not run as root.
    """
    installed_kit(folder)
    policy = folder.path / "policy.toml"
    if not policy.is_file():
        raise BadInput(f"{policy}: no such file")
    out = _Layout(folder.path / "containers", owner)
    out.start()
    inner = LoopbackTls(out.secret("supernode.pem"), out.public("supernode.crt"))
    write_tls(inner, (supernode,), now)
    inner.authority.chmod(0o644)
    owner(inner.certificate, users.supernode)
    out.write_secret("node", read_private(folder.node), users.supernode)
    out.write_secret("supernode.secret", read_private(folder.secret), users.supernode)
    out.write_secret("relay.secret", read_private(folder.secret), users.relay)
    out.publish("ca.crt", folder.authority.read_bytes())
    out.publish("bundles.txt", f"{bundle_sha256()}  this version's own\n".encode())
    give_all(folder.path, users.custodian, owner, leave=out.path)
    return out.path


def give_all(folder: Path, user: int, owner: Owner, leave: Path | None = None) -> None:
    """Give ``folder`` and everything in it to ``user``, except what is in ``leave``."""
    owner(folder, user)
    for path in sorted(folder.iterdir()):
        if path == leave:
            continue
        if path.is_dir() and not path.is_symlink():
            give_all(path, user, owner)
        else:
            owner(path, user)


@dataclass(frozen=True)
class _Layout:
    """A folder with ``public/``, which is mounted whole, and ``secrets/``, file by file."""

    path: Path
    owner: Owner

    def start(self) -> None:
        """Make both."""
        for name, mode in (("public", 0o755), ("secrets", 0o700)):
            (self.path / name).mkdir(parents=True, exist_ok=True)
            (self.path / name).chmod(mode)

    def publish(self, name: str, content: bytes) -> None:
        """Write a file that every container may read, whatever the umask."""
        write_public(self.public(name), content)
        self.public(name).chmod(0o644)

    def public(self, name: str) -> Path:
        """A file that every container may read."""
        return self.path / "public" / name

    def secret(self, name: str) -> Path:
        """A file that one container may read."""
        return self.path / "secrets" / name

    def write_secret(self, name: str, text: str, user: int) -> None:
        """A private file for ``user`` alone."""
        write_private(self.secret(name), text)
        self.owner(self.secret(name), user)
