"""The ServerApp that a coordinator's bundle names: a run folder from where it is to its end.

The folder is what the run configuration says under ``run-folder``, a path at the coordinator; up to
``wait-s`` seconds are spent waiting for all its hospitals to be online.
Killed and started again it goes on after its last checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from wardround.client.custodian import Surroundings
from wardround.client.workbench import Workbench
from wardround.server.resending import POLL_S, ResendingGrid
from wardround.study.publishing import publish
from wardround.study.run_folder import RunFolder
from wardround.study.runner import Stage, execute

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run what is left of the run and publish it."""
    folder = RunFolder.open(Path(str(context.run_config["run-folder"])))
    wait_for_nodes(grid, len(folder.facts.members), float(str(context.run_config["wait-s"])))

    def engine(rounds: Callable[[Grid], None], _: RunFolder, __: Surroundings) -> None:
        rounds(ResendingGrid(grid))

    with Workbench() as workbench:
        outcome = execute(folder, Stage(workbench=workbench, engine=engine))
        publish(folder, outcome, workbench)


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
