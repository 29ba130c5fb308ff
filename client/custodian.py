"""The custodian: the one who answers for a hospital's data.

Holds policy, ledger, keys, records and model; whatever stands between it and the coordinator is
only a relay and sees bytes. Every answer is signed: an update that may leave, or a refusal that
says why. A round goes: verify, look up, decide, charge, train, store, answer (DESIGN laws 1 to 3).
Knows nothing of Flower, of other hospitals, or of how updates are combined.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from wardround.client.gradients import Workload
from wardround.client.hospital import Hospital
from wardround.client.labels import expecting_flips
from wardround.client.layers import background
from wardround.client.letterhead import Letterhead
from wardround.client.memory import OptimizerMemory
from wardround.client.models import Loading
from wardround.client.optimizers import Moments
from wardround.client.personal import Personal
from wardround.client.record_room import RecordRoom, grouped_by
from wardround.client.refusals import RefusalBook
from wardround.client.seat import Seat, require_terms
from wardround.client.shares import check_secure, fit_lattice, make_part
from wardround.client.streams import Streams
from wardround.client.trainable import Trainable, check_corrections, split_corrections
from wardround.client.training import (
    OnStep,
    Round,
    TrainingConfig,
    check_plan,
    train_round,
)
from wardround.client.workbench import Workbench
from wardround.privacy.accountant import epsilon
from wardround.privacy.envelope import open_bytes, parse_document
from wardround.privacy.errors import BadInput, BadMessage, PolicyRefused, WardroundError
from wardround.privacy.events import NOTHING, Event
from wardround.privacy.label_book import LabelBook
from wardround.privacy.ledger import Charge, Ledger
from wardround.privacy.loss_report import LOSS
from wardround.privacy.noise import Arrays, Noised
from wardround.privacy.plan import RoundPlan, plan_from_json
from wardround.privacy.policy import Policy
from wardround.privacy.report import Standing, hospital_report, sign_report
from wardround.privacy.secagg.lattice import Words, read_words, to_words
from wardround.privacy.secagg.letters import pack, unpack
from wardround.privacy.secagg.terms import Terms
from wardround.privacy.signing import SigningKey, canonical, sha256
from wardround.privacy.stream import SecureStream
from wardround.privacy.tables import from_table
from wardround.strategies.codec import decode
from wardround.strategies.encoding import find_encoding
from wardround.strategies.factors import backgrounds, pick, without_background

log = logging.getLogger("wardround.custodian")

PLAN = "plan"


@dataclass(frozen=True)
class Surroundings:
    """What a custodian is given instead of reaching for it.

    Attributes:
        workbench: Puts models together; shared by the hospitals of one process.
        stream: Makes the stream of one round.
        on_step: Told about (hospital, step, steps); sees no data.
    """

    workbench: Workbench
    stream: Callable[[RoundPlan], SecureStream] = field(default_factory=Streams)
    on_step: Callable[[str, int, int], None] = lambda hospital, step, steps: None


class Custodian:
    """One hospital's custodian; answers requests one at a time."""

    def __init__(
        self, hospital: Hospital, surroundings: Surroundings, records: RecordRoom | None = None
    ) -> None:
        """Read the policy and open the ledger; the records are read when a task first asks.

        Raises:
            BadInput: The policy cannot be used.
            LedgerError: The ledger is damaged or held by another process.
        """
        self.hospital = hospital
        self.policy = Policy.read(hospital.policy)
        self._around = surroundings
        self._key = SigningKey.load_or_create(hospital.key)
        self._ledger = Ledger(hospital.ledger, self._key)
        self._memory = OptimizerMemory(hospital.folder / "optimizer")
        self._personal = Personal(hospital.folder / "personal")
        self._labels = LabelBook(hospital.folder / "labels")
        self._records = records or RecordRoom(hospital)
        self._letterhead = Letterhead(hospital.name, self._key, RefusalBook(hospital.ledger))
        self._seat = Seat(
            hospital.name, hospital.secure_sums, self._key, hospital.members, self._words
        )

    @property
    def public_key(self) -> str:
        """What others verify this hospital's signatures with."""
        return self._key.public

    def close(self) -> None:
        """Give the ledger up."""
        self._ledger.close()

    def declare(self) -> bytes:
        """Signed: who this hospital is, how many units it declares and what it may still spend."""
        data, budget = self.policy.data, self.policy.budget
        spent = self._ledger.spent(data.name, budget.unit)
        return self._letterhead.declaration(
            {
                "dataset": data.name,
                "declared_units": data.declared_units,
                "unit": budget.unit.value,
                "epsilon_budget": budget.epsilon,
                "epsilon_spent": _finite(epsilon(spent, budget.delta)),
                "delta": budget.delta,
            }
        )

    def train(self, sealed_plan: bytes, arrays_block: bytes) -> bytes:
        """The signed update for this plan, or a signed refusal.

        A repeated plan gets the bytes it got before and is not charged again.

        Privacy: what leaves has been charged to the ledger, clipped and noised as the plan says;
        a refusal depends on plan, policy and ledger only.
        """
        round_number = 0
        try:
            plan = self._open_plan(sealed_plan)
            round_number = plan.round
            if plan.secure is not None:
                raise PolicyRefused("the plan's update goes into a secure sum; ask for it there")
            self._ledger.require_contains(plan.ledger_head)
            stored = self._ledger.stored_reply(plan.run, plan.round, plan.sha256)
            if stored is not None:
                return stored
            return self._train(plan, arrays_block)
        except WardroundError as refusal:
            return self._letterhead.refusal(round_number, refusal)

    def secure_sum(self, sealed_request: bytes, arrays_block: bytes) -> bytes:
        """The signed answer to one stage of a secure sum, or a signed refusal.

        A repeated request gets the bytes it got before; a round is charged once, whatever the
        number of attempts to sum it up.

        Privacy: what leaves of an update is masked. What opens the sum of several leaves once a
        round, and never what opens this hospital's part alone.
        """
        try:
            letter = self._seat.answer(sealed_request, self.hospital.coordinator, arrays_block)
            return pack({"letter": letter})
        except WardroundError as refusal:
            return pack({"refusal": self._letterhead.refusal(0, refusal)})

    def _train(self, plan: RoundPlan, arrays_block: bytes) -> bytes:
        """Decide, charge, train, store."""
        started = time.perf_counter()
        spent = self._ledger.spent(self.policy.data.name, plan.privacy.unit)
        due = self._due(plan)
        charged = due == NOTHING or self._ledger.charged(plan.run, plan.round)
        self.policy.decide(plan, spent, charged).enforce()
        training = from_table(TrainingConfig, plan.training, "plan training")
        find_encoding(plan.encoding)  # like the line above, refused before anything is charged
        if sha256(arrays_block) != plan.arrays_sha256:
            raise BadMessage("the arrays are not those the plan names")
        _, sent = decode(arrays_block, "arrays")
        arrays, corrections = split_corrections(sent)
        behind, arrays = backgrounds(arrays), without_background(arrays)
        arrays = {name: array for name, array in arrays.items() if name != LOSS}
        named = (*(plan.trains or arrays), *plan.keeps)
        workload, moving = self._prepare(plan), [name for name in named if name != LOSS]
        workload = expecting_flips(workload, plan.privacy)
        if training.micro_batch == "auto":
            fitting = self._around.workbench.units_at_once(grouped_by(plan))
            training = replace(training, micro_batch=fitting)
        arrays |= self._own(plan, workload.trainable)
        workload.trainable.write(arrays)
        with background(workload.trainable.model, behind), workload.only(moving) as part:
            check_corrections(corrections, part.trainable.shapes)
            check_secure(plan, training, corrections)
            round_ = replace(self._charge(plan, due, part, training), corrections=corrections)
            start = pick(arrays, part.trainable.parameters)
            reply, moments = self._make_reply(plan, round_, start)
        seconds = time.perf_counter() - started
        log.info(
            "trained round=%(round)d seconds=%(seconds).3f",
            {"round": plan.round, "seconds": seconds},
        )
        stored = self._ledger.commit(round_.reservation, reply)
        if training.keep_state and moments is not None:
            self._keep(plan, moments)
        return stored

    def _make_reply(
        self, plan: RoundPlan, round_: Round, arrays: Arrays
    ) -> tuple[bytes, Moments | None]:
        """What a charged round answers: a signed update, or words that only a mask lets out."""
        if plan.secure is None:
            trained = train_round(round_, arrays)
            round_.reservation.require_covers(trained.change.event)
            self._keep_own(plan, arrays, trained.change)
            leaving = trained.change.then(lambda moved: pick(moved, moved.keys() - set(plan.keeps)))
            reply = self._letterhead.update(plan, leaving, self._report(plan), round_.stream)
            return reply, trained.moments
        part = make_part(round_, arrays, plan.secure)
        round_.reservation.require_covers(part.steps.event)
        told = {"plan_sha256": plan.sha256, "report": self._report(plan)}
        words = to_words(part.steps.value, plan.secure.bits).tobytes()
        return pack({"told": canonical(told), "words": words}), part.moments

    def _words(
        self, sealed_plan: bytes, arrays_block: bytes, terms: Terms
    ) -> tuple[dict[str, Any], Words]:
        """What this hospital adds to a secure sum, made once a round: what it tells, and words.

        Privacy: the words are this hospital's own update, charged, clipped and noised; they are to
        be masked.
        """
        plan = self._open_plan(sealed_plan)
        require_terms(plan, terms)
        self._ledger.require_contains(plan.ledger_head)
        kept = self._ledger.stored_reply(plan.run, plan.round, plan.sha256)
        parts = unpack(kept or self._train(plan, arrays_block), "kept update")
        words = read_words(parts["words"], terms.size, terms.bits)
        return parse_document(parts["told"], "kept update"), words

    def _own(self, plan: RoundPlan, trainable: Trainable) -> dict[str, Tensor]:
        """What this hospital kept of the arrays that never leave it; zero at first."""
        if not plan.keeps:
            return {}
        trainable.require(plan.keeps)
        kept = self._personal.load(plan.run, plan.round)
        shapes = trainable.shapes
        return {name: kept.get(name, torch.zeros(shapes[name])) for name in plan.keeps}

    def _keep_own(self, plan: RoundPlan, arrays: Arrays, change: Noised) -> None:
        """Store what stays here; it was noised and charged like what leaves (strategies/fedsa)."""
        if plan.keeps:
            own = {name: arrays[name] + change.value[name] for name in plan.keeps}
            self._personal.save(plan.run, plan.round, own)

    def _due(self, plan: RoundPlan) -> Event:
        """What this round is to be charged: what is paid once a run, in the round of the draw."""
        drawn = self._labels.drawn_in(plan.run) if plan.privacy.paid_once else None
        return plan.privacy.event if drawn in (None, plan.round) else NOTHING

    def _charge(
        self, plan: RoundPlan, due: Event, workload: Workload, training: TrainingConfig
    ) -> Round:
        """The round, once nothing is left that could refuse it, and charged."""
        check_plan(plan.privacy, training, workload.trainable, in_turn=bool(plan.turns))
        moments = self._recall(plan) if training.keep_state else None
        fit_lattice(plan, sum(p.numel() for p in workload.trainable.parameters.values()))
        units, dataset = self._records.units(plan), self.policy.data.name
        protected = plan.privacy.unit
        reservation = self._ledger.reserve(
            Charge(plan.study, plan.run, plan.round, plan.sha256, dataset, protected, due)
        )
        return Round(
            workload=workload,
            units=units,
            plan=plan.privacy,
            training=training,
            reservation=reservation,
            stream=self._around.stream(plan),
            on_step=self._step_observer(),
            turns=plan.turns,
            number=plan.round,
            rounds=plan.rounds,
            moments=moments,
            labels=self._labels,
        )

    def _recall(self, plan: RoundPlan) -> Moments | None:
        """What the optimizer remembers of earlier rounds of this run."""
        return self._memory.recall(plan.run, plan.round, _optimizer_settings(plan))

    def _keep(self, plan: RoundPlan, moments: Moments) -> None:
        """Keep the moments for the next round, or forget the run after its last; once committed."""
        if plan.round == plan.rounds:
            self._memory.forget(plan.run)
        else:
            self._memory.keep(plan.run, plan.round, _optimizer_settings(plan), moments)

    def _open_plan(self, sealed: bytes) -> RoundPlan:
        """The plan, once the coordinator's signature and the addressee have been checked."""
        payload = open_bytes(sealed, self.hospital.coordinator, PLAN)
        plan = plan_from_json(parse_document(payload, PLAN))
        if plan.hospital != self.hospital.name:
            raise PolicyRefused(f"the plan is for hospital {plan.hospital!r}")
        return plan

    def _prepare(self, plan: RoundPlan) -> Workload:
        """Model, adapter and engine.

        Raises:
            BadInput: The base cannot be had here; why stays in the hospital's log, because a plan
                may name any folder as a base and would learn what is in it.
        """
        loading = from_table(Loading, plan.model, "plan model")
        workbench = self._around.workbench
        try:
            return workbench.prepare(
                plan.base, plan.base_sha256, plan.adapter, plan.task, plan.task_config, loading
            )
        except WardroundError:
            self._require_base(plan, loading)
            raise

    def _require_base(self, plan: RoundPlan, loading: Loading) -> None:
        """Refuse, with one reason for all cases, a base that cannot be loaded."""
        try:
            self._around.workbench.base(plan.base, plan.base_sha256, loading)
        except WardroundError as error:
            log.error("base refused: %s", error)
            reason = "the plan's base cannot be loaded here; the hospital's log says why"
            raise BadInput(reason) from error

    def _step_observer(self) -> OnStep:
        return lambda step, steps: self._around.on_step(self.hospital.name, step, steps)

    def _report(self, plan: RoundPlan) -> dict[str, Any]:
        """What this round and this data set have cost; from plan, policy and ledger alone."""
        data, budget, unit = self.policy.data, self.policy.budget, plan.privacy.unit
        standing = Standing(
            hospital=self.hospital.name,
            dataset=data.name,
            provenance=data.provenance.value,
            declared_units=data.declared_units,
            epsilon_budget=budget.epsilon,
            delta=budget.delta,
            study=self._ledger.spent(data.name, unit, run=plan.run),
            life=self._ledger.spent(data.name, unit),
            ledger_head=self._ledger.head,
        )
        return sign_report(hospital_report(plan, standing), self._key)


def _optimizer_settings(plan: RoundPlan) -> bytes:
    """What moments are moments of: the same parameters under the same optimizer."""
    return canonical({"base": plan.base_sha256, "a": plan.adapter, "t": plan.training})


def _finite(value: float) -> float | None:
    """JSON knows no infinity; an unprotected run has no epsilon."""
    return value if value < float("inf") else None
