"""A hospital's processes as three users, each seeing its own processes and what it must reach.

The custodian has no network at all and answers through a Unix socket; the relay's network ends at
the SuperNode; only the SuperNode reaches the coordinator. Nobody has a capability or can gain one.
Needs root, which the supervisor keeps and none of its services gets. Linux; util-linux does the
work.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wardround.privacy.errors import BadInput
from wardround.study.deployment.namespaces import ClosedNetwork, IsolationImpossible
from wardround.study.deployment.processes import environment
from wardround.study.deployment.supervision import Service

PROGRAMS = ("setpriv", "unshare", "nsenter")
_MAKE = ("useradd", "groupadd")
_PREFIX = re.compile(r"[a-z][a-z0-9-]{0,19}")  # 32 characters is the longest name of a user
_ROLES = {
    "custodian": "custodian",
    "supernode": "node",
    "passage": "node",
    "relay": "relay",
}
_CHECK_S = 60.0


@dataclass(frozen=True)
class Users:
    """Who a hospital's services run as: ``PREFIX-custodian``, ``PREFIX-node`` and ``PREFIX-relay``.

    Attributes:
        prefix: Hospitals that share a machine have one each.
    """

    prefix: str = "wardround"

    def __post_init__(self) -> None:
        if not _PREFIX.fullmatch(self.prefix):
            raise BadInput(
                f"--users is {self.prefix!r}; expected at most 20 of a-z, 0-9 and -, a letter first"
            )

    @property
    def socket_group(self) -> str:
        """Custodian and relay, and nobody else; it may open the socket's folder."""
        return f"{self.prefix}-socket"

    def of(self, role: str) -> str:
        """The user of ``custodian``, ``node`` or ``relay``."""
        return f"{self.prefix}-{role}"

    def make(self) -> None:
        """Make those that are missing: system users without a home, a shell or a password."""
        if not _exists(self.socket_group, grp.getgrnam):
            _run("groupadd", "--system", self.socket_group)
        for role in sorted(set(_ROLES.values())):
            if not _exists(self.of(role), pwd.getpwnam):
                _run(
                    "useradd", "--system", "--user-group", "--no-create-home",
                    "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", self.of(role),
                )  # fmt: skip

    def own(self, path: Path, role: str, mode: int, group: str | None = None) -> None:
        """Give ``path`` to a role, with these permissions; never inside a folder that a role has.

        Raises:
            IsolationImpossible: A role has the folder that ``path`` is in, and may have put a link
                to anything there.
        """
        if path.is_symlink() or self.owns(path.parent):
            raise IsolationImpossible(f"{path}: a link, or in a folder that is not root's alone")
        shutil.chown(path, self.of(role), group or self.of(role))
        path.chmod(mode)

    def own_tree(self, folder: Path, role: str) -> None:
        """Give a folder and all that is in it to a role; one that it has already is let be."""
        folder.mkdir(mode=0o700, exist_ok=True)
        if self.owns(folder):
            return
        user = pwd.getpwnam(self.of(role))
        for at, _, names in os.walk(folder, topdown=False):
            for path in (*(Path(at) / name for name in names), Path(at)):
                if not path.is_symlink():
                    path.chmod(0o700 if path.is_dir() else 0o600)
                os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)

    def owns(self, path: Path) -> bool:
        """Whether ``path`` is one of the roles'."""
        theirs = {pwd.getpwnam(self.of(role)).pw_uid for role in _ROLES.values()}
        return path.lstat().st_uid in theirs


def require_isolation() -> None:
    """Refuse, naming everything that is missing, unless processes can be isolated here.

    Raises:
        IsolationImpossible: Not root, or programs are not installed.
    """
    missing = [] if os.geteuid() == 0 else ["root (start it with sudo)"]
    missing += [f"the program {name}" for name in (*PROGRAMS, *_MAKE) if _find(name) is None]
    if missing:
        raise IsolationImpossible(
            f"--isolate needs {', '.join(missing)}; nothing was started. Without --isolate all "
            "processes run as one user"
        )


def as_user(users: Users, role: str) -> list[str]:
    """What a command begins with to run as a role: one user, no privilege, now or later."""
    user = users.of(role)
    groups = ["--clear-groups"] if role == "node" else ["--groups", users.socket_group]
    return [
        _found("setpriv"), "--reuid", user, "--regid", user, *groups,
        "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all", "--pdeathsig", "KILL", "--",
    ]  # fmt: skip


def isolated_command(
    name: str, command: Sequence[str], users: Users, network: ClosedNetwork
) -> list[str]:
    """The command of a service with everything around it that keeps it to itself."""
    role = _ROLES[name]
    enter = [_found("nsenter"), f"--net={network.path}", "--"] if role == "relay" else []
    alone = [_found("unshare"), "--pid", "--fork", "--kill-child", "--mount-proc"]
    if role == "custodian":
        alone.append("--net")  # without any interface that is up
    return [*enter, *alone, "--", *as_user(users, role), *command]


def isolate(
    services: Sequence[Service],
    users: Users,
    network: ClosedNetwork,
    homes: Path,
    programs: Path,
) -> list[Service]:
    """The same services, each as its user and in its namespaces.

    Args:
        services: As they would run without.
        users: They exist.
        network: The relay's.
        homes: Folder of a private folder a role.
        programs: Comes first on everybody's path; root's alone.
    """
    path = f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return [
        replace(
            service,
            command=isolated_command(service.name, service.command, users, network),
            environment=environment(homes / _ROLES[service.name])
            | {"PATH": path}
            | dict(service.environment),
            whole_group=True,
        )
        for service in services
    ]


def require_readable(users: Users, role: str, path: Path) -> None:
    """Refuse unless a role can read a file or look into a folder.

    Raises:
        IsolationImpossible: It cannot.
    """
    tests = ["-r", str(path)] + (["-a", "-x", str(path)] if path.is_dir() else [])
    if not _succeeds([*as_user(users, role), _found("test"), *tests]):
        raise IsolationImpossible(
            f"{path}: the user {users.of(role)} cannot read it; chown it, and let every folder "
            "above be entered (chmod o+x)"
        )


def require_closed(users: Users, role: str, path: Path) -> None:
    """Refuse when a role can read a file or look into a folder.

    Raises:
        IsolationImpossible: It can.
    """
    tests = ["-r", str(path)] + (["-o", "-x", str(path)] if path.is_dir() else [])
    if _succeeds([*as_user(users, role), _found("test"), *tests]):
        owner = users.of("custodian")
        raise IsolationImpossible(
            f"{path}: the user {users.of(role)} can read it; chown {owner} and chmod go-rwx"
        )


def require_program(users: Users, command: Sequence[str]) -> None:
    """Refuse unless every role can run ``command``.

    Raises:
        IsolationImpossible: Somebody cannot.
    """
    for role in sorted(set(_ROLES.values())):
        if not _succeeds([*as_user(users, role), *command]):
            raise IsolationImpossible(
                f"the user {users.of(role)} cannot run {command[0]}; install Python and Wardround "
                "where every user may read them, not below a private home"
            )


def _exists(name: str, look_up: Callable[[str], object]) -> bool:
    try:
        look_up(name)
    except KeyError:
        return False
    return True


def _find(program: str) -> str | None:
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin:/usr/bin:/bin")


def _found(program: str) -> str:
    path = _find(program)
    if path is None:
        raise IsolationImpossible(f"the program {program} is not installed")
    return path


def _succeeds(command: Sequence[str]) -> bool:
    done = subprocess.run(  # noqa: S603 - our own commands
        list(command), capture_output=True, timeout=_CHECK_S, check=False, env={"PATH": os.defpath}
    )
    return done.returncode == 0


def _run(program: str, *arguments: str) -> None:
    done = subprocess.run(  # noqa: S603 - our own commands
        [_found(program), *arguments], capture_output=True, text=True, timeout=_CHECK_S, check=False
    )
    if done.returncode:
        raise IsolationImpossible(f"{program} {arguments[-1]}: {done.stderr.strip()}")
