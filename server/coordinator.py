"""The coordinator's round loop: plan, ask, verify, aggregate, keep, report; then the next round.

Goes on with whoever answers. Every update is checked against the plan it answers and added to the
running aggregate as it arrives, then dropped. Knows nothing of data, tasks or models: what trains
are named arrays, and evaluation is a function somebody else provides.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from flwr.app import Message
from flwr.serverapp import Grid
from torch import Tensor

from wardround.privacy.chain import LedgerHead
from wardround.privacy.envelope import open_bytes, seal_bytes
from wardround.privacy.errors import BadMessage, UntrustedPeer, WardroundError
from wardround.privacy.plan import PrivacyPlan, RoundPlan
from wardround.privacy.report import check_report
from wardround.privacy.signing import SigningKey, sha256
from wardround.server.book import HospitalAnswer, ReportBook, RoundRecord
from wardround.strategies.base import Aggregation, Brief, Model, Strategy, Update
from wardround.strategies.checkpoint import Checkpoint, save_checkpoint
from wardround.strategies.codec import decode, encode
from wardround.strategies.wire import DECLARE, TRAIN, read_reply, request_content

log = logging.getLogger("wardround.coordinator")

Arrays = Mapping[str, Tensor]
Metrics = Mapping[str, float]


class RoundFailed(WardroundError):
    """No hospital sent a usable update; the model stays as it was."""


@dataclass(frozen=True)
class Agenda:
    """What the study asks for, the same for every hospital and round.

    Attributes:
        study: Name of the study.
        run: Identifier of this run.
        rounds: How many rounds.
        task: Registered task name.
        base: Name of the base model.
        base_sha256: Hash of its weights.
        privacy: Makes a hospital's privacy plan from its declared number of units.
        adapter: The settings of a hospital's adapter, as JSON, by name of the hospital.
        training: Optimizer settings, as JSON.
        task_config: The task's settings, as JSON.
        ranks: Adapter rank of every hospital, where they differ.
    """

    study: str
    run: str
    rounds: int
    task: str
    base: str
    base_sha256: str
    privacy: Callable[[int], PrivacyPlan]
    adapter: Callable[[str], Mapping[str, Any]]
    training: Mapping[str, Any]
    task_config: Mapping[str, Any]
    ranks: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Order:
    """What one hospital is asked in one round, and what it is sent."""

    plan: RoundPlan
    brief: Brief
    block: bytes
    rank: int | None


class Observer:
    """Told what happens; subclasses show it. All arguments are public."""

    def on_start(self, first_round: int, rounds: int, hospitals: Iterable[str]) -> None:
        """The hospitals have declared themselves."""

    def on_answer(self, round_number: int, answer: HospitalAnswer) -> None:
        """One hospital answered in this round."""

    def on_round(self, record: RoundRecord) -> None:
        """A round has ended and is on disk."""


@dataclass
class Desk:
    """What a coordinator works with.

    Attributes:
        folder: The run's folder.
        key: Signs plans and the round records.
        members: Public key of every enrolled hospital, by name.
        strategy: Combines the updates.
        evaluate: Scores (round, model) on public probes, or nothing in rounds it skips.
        observer: Told what happens.
        timeout_s: How long a round waits for the slowest hospital.
        poll_s: Pause between two looks for answers.
        clock: Seconds, for time limits and durations.
        sleep: Waits.
    """

    folder: Path
    key: SigningKey
    members: Mapping[str, str]
    strategy: Strategy
    evaluate: Callable[[int, Model], Metrics] = lambda number, model: {}
    observer: Observer = field(default_factory=Observer)
    timeout_s: float = 3600.0
    poll_s: float = 0.2
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class Coordinator:
    """Runs an agenda over a Flower grid."""

    def __init__(self, agenda: Agenda, desk: Desk) -> None:
        self._agenda = agenda
        self._desk = desk
        self._book = ReportBook(desk.folder / "rounds", desk.key)
        self._nodes: dict[str, int] = {}
        self._declared: dict[str, int] = {}
        self._heads: dict[str, LedgerHead] = {}

    def run(self, grid: Grid, start: Checkpoint) -> Checkpoint:
        """Rounds ``start.round + 1`` to the last; returns the final checkpoint.

        Raises:
            RoundFailed: A round brought no usable update. What was reached is on disk.
        """
        self._heads = {
            name: LedgerHead(**head) for name, head in start.state.get("heads", {}).items()
        }
        self._enrol(grid)
        self._desk.observer.on_start(start.round + 1, self._agenda.rounds, self._nodes)
        current = start
        for number in range(start.round + 1, self._agenda.rounds + 1):
            current = self._round(grid, number, current)
        return current

    def _enrol(self, grid: Grid) -> None:
        """Ask every node who it is; only enrolled hospitals with a valid signature take part."""
        for node, header, _ in self._ask(grid, dict.fromkeys(grid.get_node_ids())):
            units = header.get("declared_units")
            if header.get("kind") == "declaration" and isinstance(units, int) and units >= 1:
                name = str(header["hospital"])
                self._nodes[name], self._declared[name] = node, units
        if not self._nodes:
            raise RoundFailed("no enrolled hospital answered; the study did not start")

    def _round(self, grid: Grid, number: int, before: Checkpoint) -> Checkpoint:
        """One round, from plans to the checkpoint on disk."""
        desk, started = self._desk, self._desk.clock()
        orders = self._orders(number, before.arrays)
        requests = {self._nodes[name]: (o.plan, o.block) for name, o in orders.items()}
        aggregation = desk.strategy.begin(before.arrays, number)
        answers: dict[str, HospitalAnswer] = {}
        for _, header, arrays in self._ask(grid, requests):
            name = str(header["hospital"])
            if name in orders and name not in answers:
                answers[name] = self._take(orders[name], header, arrays, aggregation)
                desk.observer.on_answer(number, answers[name])
        for name in orders.keys() - answers.keys():
            answers[name] = HospitalAnswer(name, reason="no valid answer in time")
        usable = [answer for answer in answers.values() if answer.report is not None]
        if not usable:
            reasons = "; ".join(f"{a.hospital}: {a.reason}" for a in answers.values())
            raise RoundFailed(f"round {number}: no usable update ({reasons})")
        after = aggregation.finish()
        record = RoundRecord(
            study=self._agenda.study,
            run=self._agenda.run,
            round=number,
            rounds=self._agenda.rounds,
            answers=tuple(answers[name] for name in sorted(answers)),
            metrics=dict(desk.evaluate(number, desk.strategy.deploy(after))),
            bytes_down=sum(len(order.block) for order in orders.values()),
            seconds=desk.clock() - started,
        )
        self._heads |= _heads(usable)
        heads = {name: asdict(head) for name, head in self._heads.items()}
        checkpoint = Checkpoint(number, after, {"run": self._agenda.run, "heads": heads})
        self._book.write(record)
        save_checkpoint(desk.folder / "checkpoint", checkpoint)
        desk.observer.on_round(record)
        return checkpoint

    def _orders(self, number: int, state: Arrays) -> dict[str, _Order]:
        """What each hospital is asked and sent; equal arrays are encoded once."""
        ranks = {name: self._agenda.ranks.get(name) for name in sorted(self._nodes)}
        briefs, blocks = {}, {}
        for rank in dict.fromkeys(ranks.values()):
            briefs[rank] = self._desk.strategy.brief(state, number, rank)
            blocks[rank] = encode({"kind": "global", "round": number}, briefs[rank].arrays)
        return {
            name: _Order(self._plan(name, number, briefs[r], blocks[r]), briefs[r], blocks[r], r)
            for name, r in ranks.items()
        }

    def _plan(self, hospital: str, number: int, brief: Brief, block: bytes) -> RoundPlan:
        """What this hospital is asked to do; the same request always makes the same plan."""
        agenda = self._agenda
        return RoundPlan(
            study=agenda.study,
            run=agenda.run,
            round=number,
            rounds=agenda.rounds,
            hospital=hospital,
            task=agenda.task,
            strategy=self._desk.strategy.name,
            base=agenda.base,
            base_sha256=agenda.base_sha256,
            arrays_sha256=sha256(block),
            privacy=agenda.privacy(self._declared[hospital]),
            ledger_head=self._heads.get(hospital),
            trains=brief.trains,
            turns=brief.turns,
            adapter={**agenda.adapter(hospital), **brief.adapter},
            training={**agenda.training, **brief.training},
            task_config=agenda.task_config,
        )

    def _take(
        self, order: _Order, header: Mapping[str, Any], arrays: Arrays, aggregation: Aggregation
    ) -> HospitalAnswer:
        """Check one answer against its plan and add it to the aggregate, or say why not."""
        plan, size = order.plan, int(header["bytes"])
        if header.get("kind") == "refusal":
            reason = f"{header.get('error')}: {header.get('reason')}"
            return HospitalAnswer(plan.hospital, reason=reason, bytes_up=size)
        if header.get("kind") != "update" or header.get("plan_sha256") != plan.sha256:
            return HospitalAnswer(plan.hospital, reason="answers another plan", bytes_up=size)
        report = header.get("report")
        fault = self._report_fault(plan, report) or _fault(arrays, order.brief.expects)
        if fault:
            return HospitalAnswer(plan.hospital, reason=fault, bytes_up=size)
        aggregation.add(Update(plan.hospital, arrays, order.rank))
        return HospitalAnswer(plan.hospital, report=report, bytes_up=size)

    def _report_fault(self, plan: RoundPlan, report: object) -> str:
        """What is wrong with a hospital's own report on this plan; empty when nothing is.

        Its epsilons are not computed anew here: whoever reads the run can do that at any time.
        """
        if not isinstance(report, dict):
            return "sent no report"
        try:
            check_report(report, self._desk.members[plan.hospital], recompute=False)
        except (BadMessage, UntrustedPeer) as error:
            return str(error)
        return "" if report["plan_sha256"] == plan.sha256 else "reports on another plan"

    def _ask(
        self, grid: Grid, requests: Mapping[int, tuple[RoundPlan, bytes] | None]
    ) -> Iterable[tuple[int, dict[str, Any], dict[str, Tensor]]]:
        """Send requests and yield verified answers as they arrive: node, header, arrays."""
        desk = self._desk
        messages = [self._message(grid, node, request) for node, request in requests.items()]
        waiting = dict(zip(grid.push_messages(messages), requests, strict=True))
        deadline = desk.clock() + desk.timeout_s
        while waiting and desk.clock() < deadline:
            replies = list(grid.pull_messages(list(waiting)))
            for reply in replies:
                node = waiting.pop(reply.metadata.reply_to_message_id, None)
                opened = None if node is None else self._open(reply)
                if node is not None and opened is not None:
                    yield node, *opened
            if waiting and not replies:
                desk.sleep(desk.poll_s)

    def _message(self, grid: Grid, node: int, request: tuple[RoundPlan, bytes] | None) -> Message:
        """A Flower message that asks a node to declare itself or to carry out a plan."""
        if request is None:
            return Message(request_content(b"-", b"-"), node, DECLARE, group_id="0")
        plan, block = request
        sealed = seal_bytes(plan.to_bytes(), self._desk.key, "plan")
        return Message(request_content(sealed, block), node, TRAIN, group_id=str(plan.round))

    def _open(self, reply: Message) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Header and arrays of an answer signed by the enrolled hospital it names, else None."""
        if reply.has_error():
            return None
        try:
            sealed = read_reply(reply.content)
            claimed, _ = decode(sealed[64:], "reply")
            public = self._desk.members.get(str(claimed.get("hospital")))
            if public is None:
                raise UntrustedPeer(f"hospital {claimed.get('hospital')!r} is not enrolled")
            header, arrays = decode(open_bytes(sealed, public, "reply"), "reply")
        except (BadMessage, UntrustedPeer) as error:
            self._book.note(str(error))
            return None
        return header | {"bytes": len(sealed)}, arrays


def _heads(answers: Iterable[HospitalAnswer]) -> dict[str, LedgerHead]:
    """Where each hospital's ledger stood when it answered; signed into its next plan.

    A hospital restored from an old copy then finds a plan that knows more than its ledger.
    """
    heads = {}
    for answer in answers:
        claimed = (answer.report or {}).get("ledger_head")
        if isinstance(claimed, dict):
            try:
                heads[answer.hospital] = LedgerHead(**claimed)
            except (TypeError, ValueError) as error:
                log.warning("hospital=%s sent an unusable ledger head: %s", answer.hospital, error)
    return heads


def _fault(arrays: Arrays, expected: Arrays) -> str:
    """What is wrong with an update's names, shapes or values; empty when nothing is."""
    if arrays.keys() != expected.keys():
        return f"array {sorted(arrays.keys() ^ expected.keys())[0]!r} is missing or unknown"
    for name, array in arrays.items():
        if array.shape != expected[name].shape:
            return f"array {name!r} has shape {tuple(array.shape)}"
        if not bool(torch.isfinite(array).all()):
            return f"array {name!r} holds a value that is not finite"
    return ""
