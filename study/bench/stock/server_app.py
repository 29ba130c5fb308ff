"""The ServerApp of the stock app: Flower's FedAvg, which notes when each round began."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

INPUTS = 64

app = ServerApp()


class Noting(FedAvg):
    """FedAvg and a stopwatch."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.begun: list[float] = []
        self.work_s: list[float] = []

    def configure_train(self, *args: Any, **kwargs: Any) -> Iterable[Message]:
        """As FedAvg; a round begins."""
        self.begun.append(time.time())
        return super().configure_train(*args, **kwargs)

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        """As FedAvg; notes the longest training among the nodes."""
        heard = list(replies)
        good = [reply for reply in heard if not reply.has_error()]
        seconds = [float(str(r.content.metric_records["metrics"]["seconds"])) for r in good]
        self.work_s.append(max(seconds))
        return super().aggregate_train(server_round, heard)


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Some rounds; when they began and how long they trained goes to the file ``notes``."""
    settings = {name: int(str(context.run_config[name])) for name in ("rounds", "nodes", "numbers")}
    nodes = settings["nodes"]
    strategy = Noting(fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes)
    weight = np.zeros((settings["numbers"] // INPUTS, INPUTS), dtype=np.float32)
    start = ArrayRecord({"weight": Array(weight)})
    strategy.start(grid=grid, initial_arrays=start, num_rounds=settings["rounds"])
    notes = {"begun": strategy.begun, "work_s": strategy.work_s, "ended": time.time()}
    Path(str(context.run_config["notes"])).write_text(json.dumps(notes), encoding="utf-8")
