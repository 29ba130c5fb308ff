"""Runs one round of a coordinator with many hospitals and prints how much memory it took.

Run by ``test_memory.py`` in a process of its own: torch's memory is invisible to ``tracemalloc``,
so the operating system is asked. Reads a JSON list of ``[hospitals, what]`` and forks a child for
each, so that all start from the same memory; prints for each the most resident memory seen while
an answer was being taken in, above where it stood when the first one was.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from flwr.app import Message
from flwr.clientapp import ClientApp

from wardround.privacy.chain import LedgerHead
from wardround.privacy.envelope import seal_bytes
from wardround.privacy.plan import PrivacyPlan, RoundPlan, plan_from_json
from wardround.privacy.report import Standing, hospital_report, sign_report
from wardround.privacy.signing import SigningKey
from wardround.privacy.units import Unit
from wardround.server.book import HospitalAnswer
from wardround.server.coordinator import Agenda, Coordinator, Desk, Observer
from wardround.strategies.averaging import MeanOfChanges
from wardround.strategies.checkpoint import Checkpoint
from wardround.strategies.codec import encode
from wardround.strategies.fedavg import FedAvg
from wardround.strategies.wire import read_request, reply_content
from wardround.study.engines.in_process import InProcessGrid

START = {f"layer.{i}": torch.zeros(131_072) for i in range(8)}  # 4 MiB of float32
KEY = SigningKey.generate()


def resident() -> int:
    """Resident memory of this process, in bytes, counted page by page.

    ``statm`` would be cheaper, but on machines with many cores it is off by tens of megabytes.
    """
    rollup = Path("/proc/self/smaps_rollup").read_text()
    return 1024 * int(re.search(r"^Rss:\s+(\d+) kB", rollup, re.MULTILINE).group(1))


class Generous(InProcessGrid):
    """Hands over everything that was asked for, at once, as Flower's own grid does."""

    def __init__(self, hospitals: int) -> None:
        self.names = {100 + i: f"hospital-{i}" for i in range(hospitals)}
        self._report: dict[str, Any] = {}
        super().__init__(ClientApp(), self.names)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self._answer(self._queue.pop(i)) for i in list(message_ids) if i in self._queue]

    def _answer(self, message: Message) -> Message:
        name = self.names[message.metadata.dst_node_id]
        header: dict[str, Any] = {"hospital": name, "key": KEY.public}
        arrays: dict[str, torch.Tensor] = {}
        if message.metadata.message_type.startswith("query"):
            header |= {"kind": "declaration", "declared_units": 50}
        else:
            sealed, _ = read_request(message.content)
            plan = plan_from_json(json.loads(sealed[64:]))
            own = {"hospital": name, "plan_sha256": plan.sha256}
            report = sign_report({**self._template(plan), **own}, KEY)
            header |= {"kind": "update", "plan_sha256": plan.sha256, "report": report}
            arrays = {n: torch.ones_like(a) for n, a in START.items()}
        reply = seal_bytes(encode(header, arrays), KEY, "reply")
        return Message(reply_content(reply), reply_to=message)

    def _template(self, plan: RoundPlan) -> dict[str, Any]:
        """A report whose epsilons are computed once: they are the same for all, and slow."""
        if not self._report:
            event, head = plan.privacy.event, LedgerHead(3, "a" * 64)
            standing = Standing("any", "d", "private", 50, 8.0, 1e-5, event, event, head)
            self._report = hospital_report(plan, standing)
        return self._report


class Scales(Observer):
    """Weighs the process at every answer."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def on_answer(self, round_number: int, answer: HospitalAnswer) -> None:
        assert answer.report is not None, answer.reason
        self.seen.append(resident())


class Hoarder(FedAvg):
    """A broken twin: keeps every update it is given."""

    def begin(self, state: Any, round_number: int) -> Any:
        inner, kept = super().begin(state, round_number), []

        class Keeping(MeanOfChanges):
            def add(self, update: Any) -> None:
                kept.append(dict(update.change))
                inner.add(update)

            def finish(self) -> Any:
                return inner.finish()

        return Keeping({})


class Greedy(Generous):
    """A broken twin: when one answer is asked for, everything that has arrived is fetched first."""

    def __init__(self, hospitals: int) -> None:
        super().__init__(hospitals)
        self._fetched: dict[str, Message] = {}

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        if self._queue:
            waiting = list(self._queue)
            self._fetched |= zip(waiting, super().pull_messages(waiting), strict=True)
        return [self._fetched.pop(i) for i in list(message_ids) if i in self._fetched]


def measure(hospitals: int, what: str) -> int:
    """Bytes that one round took above what it took at its first answer."""
    agenda = Agenda(
        "s", "run", 1, "t", "b", "0" * 64,
        lambda units: PrivacyPlan(Unit.RECORD, 1.0, 1.0, 0.1, 2, 5.0), lambda hospital: {}, {}, {},
    )  # fmt: skip
    grid, scales = (Greedy if what == "greedy" else Generous)(hospitals), Scales()
    members = dict.fromkeys(grid.names.values(), KEY.public)
    with tempfile.TemporaryDirectory(prefix="wardround-memory-") as folder:
        strategy = Hoarder() if what == "hoarder" else FedAvg()
        desk = Desk(Path(folder), KEY, members, strategy, observer=scales)
        Coordinator(agenda, desk).run(grid, Checkpoint(0, START, {}))
    assert len(scales.seen) == hospitals
    return max(scales.seen) - (scales.seen[0] if what != "greedy" else BEFORE)


BEFORE = resident()


def forked(hospitals: int, what: str) -> int:
    """What a child measured."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, str(measure(hospitals, what)).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return int(said)


if __name__ == "__main__":
    print(json.dumps([forked(*job) for job in json.loads(sys.stdin.read())]))
