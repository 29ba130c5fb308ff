"""Real processes for a supervisor: their environment, their logs, and how readiness is seen."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import BinaryIO

from wardround.study.deployment.supervision import Process, Service
from wardround.study.provisioning.keys import make_private_folder

PYTHON = sys.executable
# Passed on from the surroundings; everything else a service sees is set here.
_INHERITED = (
    "LANG", "LC_ALL", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "HF_HOME",
    "WARDROUND_LOG_FORMAT", "WARDROUND_LOG_LEVEL",
)  # fmt: skip
_STARTED_BY_NAME = ("flwr-serverapp", "flwr-clientapp")
_CONNECT_S = 0.5


@dataclass(frozen=True)
class Launcher:
    """Starts services, each with a log file of its own.

    Attributes:
        logs: Folder of the log files; None lets services write where this process writes.
        home: Flower's own folder, private to this supervisor.
    """

    logs: Path | None
    home: Path

    def __call__(self, service: Service) -> Process:
        """The started process, in a group of its own so that a terminal's ^C reaches us alone."""
        with self._output(service.name) as output:
            process = subprocess.Popen(  # noqa: S603 - our own commands
                list(service.command),
                env=environment(self.home) | dict(service.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=None if output is None else subprocess.STDOUT,
                start_new_session=True,
                pass_fds=service.descriptors,
            )
        return _Group(process) if service.whole_group else process

    def _output(self, name: str) -> AbstractContextManager[BinaryIO | None]:
        if self.logs is None:
            return nullcontext()
        return (self.logs / f"{name}.log").open("ab")


@dataclass(frozen=True)
class _Group:
    """A process and all it has started, signalled together."""

    first: subprocess.Popen[bytes]

    def poll(self) -> int | None:
        return self.first.poll()

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self.first.poll() is None:
            os.killpg(self.first.pid, number)


def environment(home: Path) -> dict[str, str]:
    """What every service is started with: nothing calls home, nothing is looked up on a hub."""
    return {
        "PATH": f"{home / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "HOME": str(home),
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        **_inherited(os.environ),
    }


def flower(program: str) -> list[str]:
    """How one of Flower's programs is started under our own Python, wherever scripts lie.

    ``-P``: a folder named like a package of ours must not be found in the working directory.
    """
    entry = next(e for e in distribution("flwr").entry_points if e.name == program)
    code = (
        f"import sys; sys.argv[0] = {program!r}; "
        f"from {entry.module} import {entry.attr} as main; sys.exit(main())"
    )
    return [PYTHON, "-P", "-c", code]


def write_programs(folder: Path) -> None:
    """Scripts for what Flower starts by name, in ``folder``, which comes first on the path."""
    make_private_folder(folder)
    for program in _STARTED_BY_NAME:
        path = folder / program
        line = " ".join(shlex.quote(word) for word in flower(program))
        path.write_text(f'#!/bin/sh\nexec {line} "$@"\n', encoding="utf-8")
        path.chmod(0o700)


def listens(host: str, port: int) -> Callable[[], bool]:
    """Whether somebody accepts connections there."""

    def ready() -> bool:
        try:
            with socket.create_connection((host, port), _CONNECT_S):
                return True
        except OSError:
            return False

    return ready


def _inherited(around: Mapping[str, str]) -> dict[str, str]:
    return {name: around[name] for name in _INHERITED if name in around}
