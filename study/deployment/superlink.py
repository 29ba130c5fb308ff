"""A SuperLink and Flower's command line to it, on this machine or in containers.

Flower's own commands go through ``flower_command``: it exits with 0 also when it reached nobody, so
what it prints is read.
"""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from wardround.privacy.disk import Disk
from wardround.privacy.errors import WardroundError
from wardround.study.deployment.loopback import HOST, LoopbackTls
from wardround.study.deployment.processes import PYTHON, environment, flower, listens
from wardround.study.deployment.supervision import Service

log = logging.getLogger("wardround.supervisor")

CONNECTION = "coordinator"
_CLI_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class SuperLink:
    """Where a SuperLink listens and what it is started with.

    Attributes:
        host: Address it binds.
        port: Port it binds.
        tls: Its certificate, good for 127.0.0.1 and whatever name others call it by.
        secret: Shared with its executor; taken as it is, byte by byte.
        home: Flower's folder, with the connection of the command line.
    """

    host: str
    port: int
    tls: LoopbackTls
    secret: Path
    home: Path

    def service(self, nodes: Callable[[], Sequence[Path]]) -> Service:
        """The process; whenever it is ready it is told the node keys in the files ``nodes`` says.

        State is in memory: nodes are registered anew at every start.
        """
        command = [
            *flower("flower-superlink"),
            "--host", self.host, "--port", str(self.port),
            "--ssl-ca-certfile", str(self.tls.authority),
            "--ssl-certfile", str(self.tls.certificate),
            "--ssl-keyfile", str(self.tls.certificate),
            "--enable-supernode-auth",
            "--isolation", "process",
            "--superexec-auth-secret-file", str(self.secret),
            "--disable-runtime-dependency-installation",
        ]  # fmt: skip
        return Service(
            "superlink",
            command,
            takes_down=("superexec",),
            ready=listens(HOST, self.port),
            on_ready=lambda: register_nodes(self.home, nodes()),
        )

    def write_connection(self) -> None:
        """Let the command line in ``home`` find it."""
        write_connection(self.home, f"{HOST}:{self.port}", self.tls.authority)


def write_connection(home: Path, address: str, authority: Path) -> None:
    """Let Flower's command line in ``home`` find the SuperLink at ``address``."""
    tables = {
        "superlink": {
            "default": CONNECTION,
            CONNECTION: {"address": address, "root-certificates": str(authority.resolve())},
        }
    }
    Disk().write_file(home / "config.toml", tomli_w.dumps(tables).encode())


def register_nodes(home: Path, nodes: Sequence[Path]) -> None:
    """Tell the SuperLink the node keys in files, in one process.

    Raises:
        WardroundError: Flower's command line refused one.
    """
    calls = [["supernode", "register", str(path.resolve()), CONNECTION] for path in nodes]
    program = (
        "import json, sys\nfrom flwr.cli.app import app\n"
        "for call in json.loads(sys.argv[1]):\n    app(call, standalone_mode=False)\n"
    )
    flower_command(home, [PYTHON, "-P", "-c", program, json.dumps(calls)])
    log.info("registered nodes=%d", len(nodes))


def flower_command(home: Path, command: list[str]) -> str:
    """What one of Flower's commands prints.

    Raises:
        WardroundError: It ended with an error.
    """
    done = subprocess.run(  # noqa: S603 - our own commands
        command,
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=_CLI_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise WardroundError(f"Flower refused: {done.stdout}{done.stderr}"[:2000])
    return done.stdout


def flower_document(home: Path, command: list[str]) -> dict[str, Any]:
    """The JSON document in what one of Flower's commands prints.

    Raises:
        WardroundError: It ended with an error, or printed something else.
    """
    text = flower_command(home, [*command, "--format", "json"])
    start = text.find("{")
    try:
        found = json.loads(text[start:]) if start >= 0 else {}
    except ValueError as error:
        raise WardroundError(f"Flower answered {text[:200]!r}") from error
    return dict(found)
