"""The coordinator's round loop: plan, ask, verify, aggregate, keep, report; then the next round.

Goes on with whoever answers. Every update is checked against the plan it answers and added to the
running aggregate as it arrives, then dropped. With a buffer, a round ends when enough have come,
and a late answer counts in the round it arrives in. Knows nothing of data, tasks or models: what
trains are named arrays, and evaluation is a function somebody else provides.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid
from torch import Tensor

from wardround.privacy.chain import LedgerHead
from wardround.privacy.plan import PrivacyPlan, RoundPlan, SecureSum
from wardround.privacy.signing import SigningKey, sha256
from wardround.server.answers import ledger_heads
from wardround.server.book import HospitalAnswer, ReportBook, RoundRecord
from wardround.server.exchange import Exchange
from wardround.server.gathering import (
    SILENT,
    Asking,
    Gathering,
    Order,
    PlainGathering,
    RoundFailed,
    refusal_reason,
)
from wardround.server.stopping import StopRule
from wardround.strategies.base import Brief, Correcting, Model, Strategy
from wardround.strategies.checkpoint import Checkpoint, save_checkpoint
from wardround.strategies.codec import encode
from wardround.strategies.encoding import Encoding
from wardround.strategies.wire import DECLARE, request_content

__all__ = ["Agenda", "Coordinator", "Desk", "Observer", "RoundFailed"]

STOPPED = "stopped"  # in a checkpoint: why no round follows
_ACCOUNT = ("unit", "delta", "epsilon_study", "epsilon_life")  # of a report, as a checkpoint keeps

Arrays = Mapping[str, Tensor]
Metrics = Mapping[str, float]


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
        deviation: Standard deviation of the noise in a change made under a plan, or None.
        model: How the base is put into memory, as JSON.
        encoding: How hospitals write their updates.
        secure: The secure sum of so many hospitals that plans speak of, or None.
        counted: From every hospital's declared units, those its plan counts on.
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
    deviation: Callable[[PrivacyPlan], float | None] = lambda plan: None
    model: Mapping[str, Any] = field(default_factory=dict)
    encoding: Encoding = Encoding.FP32
    secure: Callable[[int], SecureSum | None] = lambda hospitals: None
    counted: Callable[[Mapping[str, int]], Mapping[str, int]] = dict


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
        stop: Ends the study early, by those scores alone; without, all rounds run.
        observer: Told what happens.
        timeout_s: How long a round waits for the slowest hospital.
        buffer: Usable answers after which a round ends; whoever is still at work goes on, and the
            answer counts in a later round. Without, a round waits for everybody.
        gathering: How updates get into the aggregate; each by itself unless another way is given.
        poll_s: Pause between two looks for answers.
        clock: Seconds, for time limits and durations.
        sleep: Waits.
    """

    folder: Path
    key: SigningKey
    members: Mapping[str, str]
    strategy: Strategy
    evaluate: Callable[[int, Model], Metrics] = lambda number, model: {}
    stop: StopRule | None = None
    observer: Observer = field(default_factory=Observer)
    timeout_s: float = 3600.0
    buffer: int | None = None
    gathering: Gathering | None = None
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
        self._spent: dict[str, Any] = {}
        self._gathering = desk.gathering or PlainGathering(desk.buffer, agenda.deviation)

    def run(self, grid: Grid, start: Checkpoint) -> Checkpoint:
        """Rounds ``start.round + 1`` to the last, or until the study stops; the final checkpoint.

        A round that fails leaves a signed record of who gave which reason. Whether the study stops
        is decided once, with the round that was looked at, and kept in that round's record and
        checkpoint: a run that goes on from there does not decide again.

        Raises:
            RoundFailed: A round brought no usable update. What was reached is on disk.
        """
        self._heads = {
            name: LedgerHead(**head) for name, head in start.state.get("heads", {}).items()
        }
        self._spent = dict(start.state.get("spent", {}))
        desk = self._desk
        exchange = Exchange(grid, desk.members, desk.timeout_s, desk.poll_s, desk.clock, desk.sleep)
        self._enrol(exchange, start.round + 1)
        self._desk.observer.on_start(start.round + 1, self._agenda.rounds, self._nodes)
        current = start
        for number in range(start.round + 1, self._agenda.rounds + 1):
            if current.state.get(STOPPED):
                break
            current = self._round(exchange, number, current)
        return current

    def _enrol(self, exchange: Exchange, first_round: int) -> None:
        """Ask every node who it is; only enrolled hospitals with a valid signature take part."""
        started, answers = self._desk.clock(), {}
        exchange.send({node: _question(node) for node in exchange.grid.get_node_ids()})
        for arrival in exchange.arrivals():
            header, name = arrival.header, str(arrival.header["hospital"])
            units = header.get("declared_units")
            if header.get("kind") == "declaration" and isinstance(units, int) and units >= 1:
                self._nodes[name], self._declared[name] = arrival.node, units
            elif header.get("kind") == "refusal":
                answers[name] = HospitalAnswer(name, reason=refusal_reason(header))
        exchange.forget()
        if not self._nodes:
            why = "no enrolled hospital answered; the study did not start"
            self._keep_failure(first_round, why, answers, started)
            raise RoundFailed(why)

    def _round(self, exchange: Exchange, number: int, before: Checkpoint) -> Checkpoint:
        """One round, from plans to the checkpoint on disk."""
        desk, started = self._desk, self._desk.clock()
        answers: dict[str, HospitalAnswer] = {}

        def told(answer: HospitalAnswer) -> None:
            answers[answer.hospital] = answer
            desk.observer.on_answer(number, answer)

        try:
            free = [name for name, node in self._nodes.items() if node not in exchange.busy]
            orders = self._orders(number, before.arrays, sorted(free))
            aggregation = desk.strategy.begin(before.arrays, number)
            asking = Asking(exchange, desk.key, self._nodes, number, orders, told)
            gathered = self._gathering.gather(asking, aggregation)
            answers |= gathered.answers
            usable = [answer for answer in answers.values() if answer.report is not None]
            if not usable:
                reasons = "; ".join(f"{a.hospital}: {a.reason}" for a in answers.values())
                raise RoundFailed(f"round {number}: no usable update ({reasons})")
        except RoundFailed as failure:
            self._keep_failure(number, str(failure), answers, started)
            raise
        after = aggregation.finish()
        scores = dict(desk.evaluate(number, desk.strategy.deploy(after)))
        stopped = desk.stop.reason(scores) if desk.stop and number < self._agenda.rounds else ""
        record = RoundRecord(
            study=self._agenda.study,
            run=self._agenda.run,
            round=number,
            rounds=self._agenda.rounds,
            answers=tuple(answers[name] for name in sorted(answers)),
            metrics=scores,
            bytes_down=gathered.bytes_down,
            seconds=desk.clock() - started,
            stopped=stopped,
        )
        kept = self._bookkeeping(usable) | ({STOPPED: stopped} if stopped else {})
        checkpoint = Checkpoint(number, after, kept)
        self._book.write(record)
        save_checkpoint(desk.folder / "checkpoint", checkpoint)
        desk.observer.on_round(record)
        return checkpoint

    def _keep_failure(
        self, number: int, why: str, answers: Mapping[str, HospitalAnswer], started: float
    ) -> None:
        """Write down that a round failed, and what each hospital said; whoever is missing, too."""
        silent = {n: HospitalAnswer(n, reason=SILENT) for n in self._nodes or self._desk.members}
        said = {**silent, **answers}
        self._book.write(
            RoundRecord(
                study=self._agenda.study,
                run=self._agenda.run,
                round=number,
                rounds=self._agenda.rounds,
                answers=tuple(said[name] for name in sorted(said)),
                seconds=self._desk.clock() - started,
                failed=why,
            )
        )

    def _bookkeeping(self, usable: Sequence[HospitalAnswer]) -> dict[str, Any]:
        """What a round leaves beside the arrays: who answered, what is spent, ledger heads."""
        self._heads |= ledger_heads(usable)
        self._spent |= {
            answer.hospital: {key: answer.report.get(key) for key in _ACCOUNT}
            for answer in usable
            if answer.report is not None
        }
        return {
            "run": self._agenda.run,
            "answered": sorted(answer.hospital for answer in usable),
            "spent": dict(self._spent),
            "heads": {name: asdict(head) for name, head in self._heads.items()},
        }

    def _orders(self, number: int, state: Arrays, hospitals: Iterable[str]) -> dict[str, Order]:
        """What each hospital is asked and sent; equal arrays are encoded once."""
        strategy, header = self._desk.strategy, {"kind": "global", "round": number}
        briefs: dict[int | None, Brief] = {}
        blocks: dict[int | None, bytes] = {}
        orders = {}
        for name in hospitals:
            rank = self._agenda.ranks.get(name)
            if rank not in briefs:
                briefs[rank] = strategy.brief(state, number, rank)
                sent = {**briefs[rank].arrays, **briefs[rank].background}
                blocks[rank] = encode(header, sent)
            brief, block = briefs[rank], blocks[rank]
            own = strategy.corrections(state, name) if isinstance(strategy, Correcting) else {}
            if own:
                block = encode(header, {**brief.arrays, **brief.background, **own})
            orders[name] = Order(self._plan(name, number, brief, block), brief, block, rank)
        return orders

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
            model=agenda.model,
            arrays_sha256=sha256(block),
            privacy=agenda.privacy(agenda.counted(self._declared)[hospital]),
            ledger_head=self._heads.get(hospital),
            secure=agenda.secure(len(self._nodes)),
            trains=brief.trains,
            keeps=brief.keeps,
            turns=brief.turns,
            encoding=agenda.encoding.value,
            adapter={**agenda.adapter(hospital), **brief.adapter},
            training={**agenda.training, **brief.training},
            task_config=agenda.task_config,
        )


def _question(node: int) -> Message:
    """A Flower message that asks a node to declare itself."""
    return Message(request_content(b"-", b"-"), node, DECLARE, group_id="0")
