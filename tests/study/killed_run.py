"""Runs ``wardround`` commands in processes that kill themselves at a chosen point.

Reads a JSON list of ``[point, count, words]`` and forks one child for each, because importing the
model library takes longer than the run; a child dies by SIGKILL on the COUNT-th time its point is
reached. Prints the list of signals that ended them.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from typing import Any

from wardround.study.cli import main

POINTS = {
    "before the charge": ("wardround.privacy.ledger:Ledger.reserve", "before"),
    "after the charge": ("wardround.privacy.ledger:Ledger.reserve", "after"),
    "in training": ("wardround.client.training:clipped_sum", "before"),
    "before the answer is stored": ("wardround.privacy.ledger:Ledger.commit", "before"),
    "after the answer is stored": ("wardround.privacy.ledger:Ledger.commit", "after"),
    "before the report": ("wardround.server.book:ReportBook.write", "before"),
    "before the checkpoint": ("wardround.server.coordinator:save_checkpoint", "before"),
    "before the scores are kept": ("wardround.study.runner:write_atomically", "before"),
    "while the report is written": ("wardround.server.book:write_atomically", "before"),
    "while the report is renamed": ("wardround.server.book:write_atomically", "after"),
    "before any file is durable": ("wardround.privacy.disk:Disk.sync", "before"),
    "before any file has its name": ("wardround.privacy.disk:Disk.replace", "before"),
    "before the adapter": ("wardround.study.local:publish", "before"),
    "after the checkpoint": ("wardround.server.coordinator:save_checkpoint", "after"),
}


def arm(point: str, count: int) -> None:
    """Replace the function at ``point`` by one that kills this process on its COUNT-th call."""
    where, when = POINTS[point]
    module, _, path = where.partition(":")
    owner: Any = importlib.import_module(module)
    *outer, name = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    real, calls = getattr(owner, name), iter(range(1, 10_000))

    def deadly(*args: Any, **kwargs: Any) -> Any:
        last = next(calls) == count
        if last and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **kwargs)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, deadly)


def run_and_die(point: str, count: int, words: list[str]) -> int:
    """The signal that ended a child running this command; 0 when it lived."""
    child = os.fork()
    if child == 0:
        arm(point, count)
        sys.argv[1:] = words
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        main()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


if __name__ == "__main__":
    importlib.import_module("wardround.study.local")
    print(json.dumps([run_and_die(*job) for job in json.loads(sys.stdin.read())]))
