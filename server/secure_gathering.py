"""Gathering one round's updates as one sum, opened only when enough hospitals agree on whose it is.

Five stages, each asked of those who answered the one before (``privacy.secagg``). Whoever falls
silent or cheats is left out and named; below the threshold the round fails, and no update was seen.
Before the list of survivors is shown, the session is written down, so that a coordinator killed
later goes on with the same sum: hospitals open one a round.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from wardround.privacy.errors import BadInput, BadMessage, UntrustedPeer, WardroundError
from wardround.privacy.plan import RoundPlan
from wardround.privacy.secagg.lattice import Words, from_words, read_words
from wardround.privacy.secagg.letters import Misconduct, pack, read_letter, unpack
from wardround.privacy.secagg.party import AGREE, MASKED, REVEAL
from wardround.privacy.secagg.requests import write_request
from wardround.privacy.secagg.shares import KEYS, SHARES
from wardround.privacy.secagg.tally import Tally
from wardround.privacy.secagg.terms import Terms
from wardround.privacy.signing import canonical
from wardround.server.answers import report_fault
from wardround.server.book import HospitalAnswer
from wardround.server.gathering import (
    SILENT,
    Asking,
    Gathered,
    Order,
    RoundFailed,
    refusal_reason,
)
from wardround.strategies.base import Aggregation, SummingAggregation
from wardround.strategies.checkpoint import write_atomically
from wardround.strategies.wire import SUM

log = logging.getLogger("wardround.coordinator")

_KEPT_ROUNDS = 2  # as many as there are checkpoints to go on from
_NO_ARRAYS = b"-"


@dataclass(frozen=True)
class SecureGathering:
    """All updates as one sum.

    Attributes:
        folder: Where sessions are kept for a restart.
        scale: What one step of the sum is worth, from a plan and the size of an update.
        attempt: Names an attempt at a round.
    """

    folder: Path
    scale: Callable[[RoundPlan, int], float]
    attempt: Callable[[], str] = lambda: secrets.token_hex(16)

    def gather(self, asking: Asking, aggregation: Aggregation) -> Gathered:
        """As ``Gathering`` says.

        Raises:
            RoundFailed: Fewer hospitals than the threshold got through every stage.
        """
        session = self._restore(asking) or _Session.begin(asking, self.attempt())
        terms, tally = session.terms, session.tally
        try:
            step = self._step(asking.orders, terms.size)
            if not tally.survivors:
                session.collect()
                self._keep(asking.number, session.to_bytes())
            total = session.open()
        except WardroundError as error:
            reason = f"round {asking.number}: {error} ({session.reasons()})"
            raise RoundFailed(reason) from error
        expected = next(iter(asking.orders.values())).brief.expects
        shapes = {name: array.shape for name, array in expected.items()}
        steps = from_words(total, shapes, terms.bits)
        change = {name: array.double() * step for name, array in steps.items()}
        # Studies whose strategy needs single updates are refused before they start.
        cast("SummingAggregation", aggregation).add_sum(change, len(tally.survivors))
        return Gathered(session.answers(), session.bytes_down)

    def _step(self, orders: Mapping[str, Order], size: int) -> float:
        """What a step is worth; all plans must agree on it."""
        worth = {self.scale(order.plan, size) for order in orders.values()}
        if len(worth) > 1:
            raise BadMessage("the hospitals' plans do not agree on what a step of the sum is worth")
        return worth.pop()

    def _restore(self, asking: Asking) -> _Session | None:
        """The session of the same plans that an earlier coordinator had collected, if any.

        Raises:
            BadInput: The file does not hold one.
        """
        path = self._path(asking.number)
        if not path.exists():
            return None
        try:
            session = _Session.from_bytes(asking, path.read_bytes())
        except (BadMessage, Misconduct, KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(
                f"{path}: holds no session of a secure sum; hospitals open one sum a round, so put "
                "the file back as it was, or begin a new run"
            ) from error
        plans = {name: order.plan.sha256 for name, order in asking.orders.items()}
        return session if session.terms.plans == plans else None

    def _keep(self, number: int, content: bytes) -> None:
        """Write a session down, and drop those no resumed run can come back to."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path(number), content)
        for old in sorted(self.folder.glob("round-*"))[:-_KEPT_ROUNDS]:
            old.unlink()

    def _path(self, number: int) -> Path:
        return self.folder / f"round-{number:04d}"


@dataclass
class _Session:
    """One session, from the first question to the sum."""

    asking: Asking
    tally: Tally
    reports: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    bytes_up: dict[str, int] = field(default_factory=dict)
    bytes_down: int = 0

    @classmethod
    def begin(cls, asking: Asking, attempt: str) -> _Session:
        """A fresh session for these orders."""
        orders, members = asking.orders, asking.exchange.members
        first = next(iter(orders.values()))
        plan, secure = first.plan, first.plan.secure
        if secure is None:
            raise RoundFailed(f"round {plan.round}: the plans speak of no secure sum")
        sizes = {
            tuple((name, array.shape) for name, array in order.brief.expects.items())
            for order in orders.values()
        }
        if len(sizes) > 1:
            raise RoundFailed(f"round {plan.round}: updates of different shapes cannot be summed")
        terms = Terms(
            run=plan.run,
            round=plan.round,
            attempt=attempt,
            threshold=secure.threshold,
            bits=secure.bits,
            size=sum(array.numel() for array in first.brief.expects.values()),
            members={name: members[name] for name in orders},
            plans={name: order.plan.sha256 for name, order in orders.items()},
        )
        return cls(asking, Tally(terms))

    @property
    def terms(self) -> Terms:
        """What the session is about."""
        return self.tally.terms

    def collect(self) -> None:
        """Keys, shares and masked rows; in the end the survivors are known."""
        tally, terms = self.tally, self.terms
        self._stage(KEYS, self.asking.orders, lambda name: {}, tally.take_keys)
        terms.require_enough(len(tally.keys), "hospitals sent their keys")
        self._stage(SHARES, tally.keys, lambda name: tally.keys, tally.take_shares)
        terms.require_enough(len(tally.dealers), "hospitals dealt shares")
        self._stage(MASKED, tally.dealers, self._masked_parts, self._take_masked)
        terms.require_enough(len(tally.survivors), "hospitals sent an update")

    def open(self) -> Words:
        """The survivors' sum: they sign who they are, then show what opens it."""
        tally, terms = self.tally, self.terms
        listed = dict.fromkeys(tally.survivors, b"")
        self._stage(AGREE, tally.survivors, lambda name: listed, tally.take_agreement)
        terms.require_enough(len(tally.agreements), "hospitals signed who survived")
        agreed = dict(tally.agreements)
        self._stage(REVEAL, agreed, lambda name: agreed, tally.take_reveal)
        return tally.total()

    def answers(self) -> dict[str, HospitalAnswer]:
        """How each hospital answered; one in the sum may have been silent or cheated later."""
        return {
            name: HospitalAnswer(
                name,
                report=self.reports.get(name),
                reason=self.faults.get(name, "" if name in self.reports else SILENT),
                bytes_up=self.bytes_up.get(name, 0),
            )
            for name in self.asking.orders
        }

    def reasons(self) -> str:
        """What went wrong, hospital by hospital."""
        rows = [f"{a.hospital}: {a.reason}" for a in self.answers().values() if a.reason]
        return "; ".join(rows)

    def to_bytes(self) -> bytes:
        """What a coordinator needs to go on after a restart, before survivors are shown."""
        parts = {
            "terms": asdict(self.terms),
            "reports": self.reports,
            "faults": self.faults,
            "bytes_up": self.bytes_up,
            "bytes_down": self.bytes_down,
        }
        return pack({"parts": canonical(parts), "tally": self.tally.to_bytes()})

    @classmethod
    def from_bytes(cls, asking: Asking, data: bytes) -> _Session:
        """The session that ``to_bytes`` wrote."""
        kept = unpack(data, "kept session")
        parts = json.loads(kept["parts"])
        tally = Tally.from_bytes(Terms(**parts.pop("terms")), kept["tally"])
        return cls(asking, tally, **parts)

    def _stage(
        self,
        stage: str,
        names: Iterable[str],
        parts: Callable[[str], Mapping[str, bytes]],
        take: Callable[[str, bytes], None],
    ) -> None:
        """Ask some hospitals and take their letters; a fault leaves its hospital out."""
        asking, messages, asked = self.asking, {}, {}
        for name in names:
            sealed = write_request(self.terms, stage, parts(name), asking.key)
            block = asking.orders[name].block if stage == MASKED else _NO_ARRAYS
            asked[asking.nodes[name]] = name
            messages[asking.nodes[name]] = asking.message(name, sealed, block, SUM)
            self.bytes_down += len(sealed) + len(block)
        asking.exchange.send(messages)
        for node, answer in asking.exchange.answers():
            name = asked[node]
            self.bytes_up[name] = self.bytes_up.get(name, 0) + len(answer)
            try:
                take(name, self._letter(answer))
            except (Misconduct, BadMessage, UntrustedPeer) as error:
                self.faults[name] = str(error)
                log.warning(
                    "unusable letter round=%(round)d hospital=%(hospital)s reason=%(reason)s",
                    {"round": self.terms.round, "hospital": name, "reason": str(error)},
                )
            if stage == MASKED or name in self.faults:
                asking.told(self.answers()[name])
        asking.exchange.forget()

    def _letter(self, answer: bytes) -> bytes:
        """The letter in an answer; ``BadMessage`` with the reason when it is a refusal."""
        parts = unpack(answer, "answer")
        if "letter" in parts:
            return parts["letter"]
        opened = self.asking.exchange.open_reply(parts.get("refusal", b""))
        raise BadMessage("unreadable answer" if opened is None else refusal_reason(opened[0]))

    def _masked_parts(self, name: str) -> dict[str, bytes]:
        """Plan and shares for one hospital."""
        letters = pack(self.tally.letters_for(name))
        return {"plan": self.asking.sealed_plan(name), "letters": letters}

    def _take_masked(self, name: str, letter: bytes) -> None:
        """A masked update with its report."""
        plan = self.asking.orders[name].plan
        told, attached = read_letter(letter, self.terms, MASKED, name)
        if told.get("plan_sha256") != plan.sha256:
            raise BadMessage("answers another plan")
        fault = report_fault(told.get("report"), plan, self.terms.members[name])
        if fault:
            raise BadMessage(fault)
        row = read_words(attached, self.terms.size, self.terms.bits)
        self.tally.take_masked(name, row)
        self.reports[name] = told["report"]
