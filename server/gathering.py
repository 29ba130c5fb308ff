"""Gathering one round's updates into the aggregate: the plain way, each by itself.

A gathering asks hospitals for what their orders say, checks what comes and says how each of them
answered. How it does so is its own affair: the round loop sees an interface. The other way is
``secure_gathering``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from flwr.app import Message

from wardround.privacy.envelope import seal_bytes
from wardround.privacy.errors import WardroundError
from wardround.privacy.plan import PrivacyPlan, RoundPlan
from wardround.privacy.signing import SigningKey
from wardround.server.answers import report_fault, update_fault
from wardround.server.book import HospitalAnswer
from wardround.server.exchange import Arrival, Exchange
from wardround.strategies.base import Aggregation, Brief, Update
from wardround.strategies.wire import TRAIN, request_content

OnAnswer = Callable[[HospitalAnswer], None]

SILENT = "no valid answer in time"


class RoundFailed(WardroundError):
    """Too few hospitals sent a usable update; the model stays as it was."""


@dataclass(frozen=True)
class Order:
    """What one hospital is asked in one round, and what it is sent.

    Attributes:
        plan: What it is asked.
        brief: What the strategy sends it.
        block: The brief's arrays, encoded.
        rank: The hospital's adapter rank, where hospitals differ.
    """

    plan: RoundPlan
    brief: Brief
    block: bytes
    rank: int | None


@dataclass(frozen=True)
class Gathered:
    """How a round's asking went.

    Attributes:
        answers: One for each hospital of the study, by name.
        bytes_down: What was sent to all hospitals together.
    """

    answers: Mapping[str, HospitalAnswer]
    bytes_down: int


@dataclass(frozen=True)
class Asking:
    """What a gathering works with in one round.

    Attributes:
        exchange: Carries the messages.
        key: Signs what leaves.
        nodes: Where every hospital of the study is reached.
        number: The round.
        orders: What is asked, by hospital; whoever is at work on an earlier round gets none.
        told: Called with each answer as it is known.
    """

    exchange: Exchange
    key: SigningKey
    nodes: Mapping[str, int]
    number: int
    orders: Mapping[str, Order]
    told: OnAnswer

    def sealed_plan(self, hospital: str) -> bytes:
        """A hospital's plan, signed."""
        return seal_bytes(self.orders[hospital].plan.to_bytes(), self.key, "plan")

    def message(self, hospital: str, sealed: bytes, block: bytes, kind: str) -> Message:
        """A Flower message to a hospital."""
        content = request_content(sealed, block)
        return Message(content, self.nodes[hospital], kind, group_id=str(self.number))


class Gathering(Protocol):
    """A way to bring updates into an aggregate."""

    def gather(self, asking: Asking, aggregation: Aggregation) -> Gathered:
        """Ask, check, aggregate.

        Raises:
            RoundFailed: What came does not make a round.
        """


@dataclass
class PlainGathering:
    """Every update by itself, added to the aggregate as it arrives and dropped.

    Attributes:
        buffer: Usable answers after which a round ends; whoever is still at work goes on, and the
            answer counts in a later round. Without, a round waits for everybody.
        deviation: Standard deviation of the noise in a change made under a plan, or None.
    """

    buffer: int | None = None
    deviation: Callable[[PrivacyPlan], float | None] = lambda plan: None
    _out: dict[str, Order] = field(default_factory=dict)

    def gather(self, asking: Asking, aggregation: Aggregation) -> Gathered:
        """As ``Gathering`` says."""
        exchange, orders, nodes = asking.exchange, asking.orders, asking.nodes
        self._out |= orders
        exchange.send(
            {
                nodes[name]: asking.message(name, asking.sealed_plan(name), order.block, TRAIN)
                for name, order in orders.items()
            }
        )
        answers: dict[str, HospitalAnswer] = {}

        def full() -> bool:
            usable = sum(answer.report is not None for answer in answers.values())
            return self.buffer is not None and usable >= self.buffer

        for arrival in exchange.arrivals(full):
            name = str(arrival.header["hospital"])
            # Signed by its hospital, but whoever was asked may have sent on another's old answer.
            if name in self._out and nodes[name] == arrival.node:
                order = self._out.pop(name)
                answers[name] = self._take(order, arrival, asking, aggregation)
                asking.told(answers[name])
        if self.buffer is None:
            exchange.forget()
        for name in nodes.keys() - answers.keys():
            at_work = nodes[name] in exchange.busy
            reason = f"still at work on round {self._out[name].plan.round}" if at_work else SILENT
            answers[name] = HospitalAnswer(name, reason=reason)
        return Gathered(answers, sum(len(order.block) for order in orders.values()))

    def _take(
        self, order: Order, arrival: Arrival, asking: Asking, aggregation: Aggregation
    ) -> HospitalAnswer:
        """Check one answer against its plan and add it to the aggregate, or say why not."""
        header, arrays = arrival.header, arrival.arrays
        plan, size = order.plan, int(header["bytes"])
        if header.get("kind") == "refusal":
            return HospitalAnswer(plan.hospital, reason=refusal_reason(header), bytes_up=size)
        if header.get("kind") != "update" or header.get("plan_sha256") != plan.sha256:
            return HospitalAnswer(plan.hospital, reason="answers another plan", bytes_up=size)
        report, public = header.get("report"), asking.exchange.members[plan.hospital]
        fault = report_fault(report, plan, public) or update_fault(
            arrays, plan, order.brief.expects
        )
        if fault:
            return HospitalAnswer(plan.hospital, reason=fault, bytes_up=size)
        deviation = None if plan.turns else self.deviation(plan.privacy)
        age = asking.number - plan.round
        aggregation.add(Update(plan.hospital, arrays, order.rank, age, deviation))
        return HospitalAnswer(plan.hospital, report=report, bytes_up=size)


def refusal_reason(header: Mapping[str, Any]) -> str:
    """Why a hospital refused."""
    return f"{header.get('error')}: {header.get('reason')}"
