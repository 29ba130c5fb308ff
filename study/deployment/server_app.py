"""The ServerApp that a coordinator's bundle names: a run folder from where it is to its end.

The folder is what the run configuration says under ``run-folder``, a path at the coordinator; up to
``wait-s`` seconds are spent waiting for all its hospitals to be online, and what nobody answers
within ``patience-s`` is sent again. Killed and started again it goes on after its last checkpoint.
Flower throws away what a ServerApp prints, so what it logs is in the folder too.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from wardround.client.custodian import Surroundings
from wardround.client.workbench import Workbench
from wardround.privacy.errors import WardroundError
from wardround.server.resending import POLL_S, ResendingGrid
from wardround.study.logs import set_up_logs
from wardround.study.publishing import publish
from wardround.study.run_folder import RunFolder
from wardround.study.runner import Stage, execute

log = logging.getLogger("wardround.serverapp")

LOG = "serverapp.log"

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run what is left of the run and publish it."""
    folder = RunFolder.open(Path(str(context.run_config["run-folder"])))
    wait_s, patience_s = (float(str(context.run_config[name])) for name in ("wait-s", "patience-s"))

    def engine(rounds: Callable[[Grid], None], _: RunFolder, __: Surroundings) -> None:
        rounds(ResendingGrid(grid, patience_s))

    with logged(folder.path), held(folder.path, wait_s), Workbench() as workbench:
        wait_for_nodes(grid, len(folder.facts.members), wait_s)
        outcome = execute(folder, Stage(workbench=workbench, engine=engine))
        publish(folder, outcome, workbench)


@contextmanager
def logged(folder: Path) -> Iterator[None]:
    """Log to a file in ``folder``, what a run fails with included."""
    form = os.environ.get("WARDROUND_LOG_FORMAT", "text")
    with (folder / LOG).open("a", encoding="utf-8") as file:
        set_up_logs(form, os.environ.get("WARDROUND_LOG_LEVEL", "info"), file)
        try:
            log.info("started")
            yield
            log.info("completed")
        except WardroundError as error:
            log.error("failed reason=%(reason)s", {"reason": str(error)})
            raise
        except Exception:
            log.exception("failed")
            raise
        finally:
            set_up_logs(form, "warning")


@contextmanager
def held(
    folder: Path,
    within_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Have a run's folder to oneself; a ServerApp that lost its SuperLink may not be gone yet.

    Raises:
        WardroundError: Another process had it for so long.
    """
    ends = clock() + within_s
    with (folder / "coordinator" / "lock").open("w") as file:
        while not _locked(file):
            if clock() >= ends:
                raise WardroundError(f"{folder}: another process goes on with this run")
            sleep(POLL_S)
        yield


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_for_nodes(
    grid: Grid,
    count: int,
    within_s: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until ``count`` nodes are online, or so long; whoever is there then is asked."""
    ends = clock() + within_s
    while len(list(grid.get_node_ids())) < count and clock() < ends:
        sleep(POLL_S)
