"""Plans: what a coordinator asks one hospital to do in one round, frozen, hashed and signed.

``RoundPlan`` adds to a ``PrivacyPlan`` (``privacy.mechanisms``) the public facts a policy decides
on. Model, adapter and task settings ride along as JSON, unread here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from wardround.privacy.chain import LedgerHead
from wardround.privacy.errors import BadInput, BadMessage
from wardround.privacy.mechanisms import Mechanism, Mode, PrivacyPlan, bound
from wardround.privacy.secagg.terms import SecureSum
from wardround.privacy.signing import canonical, sha256
from wardround.privacy.tables import as_table, from_table

__all__ = ["Mechanism", "Mode", "PrivacyPlan", "RoundPlan", "SecureSum", "plan_from_json"]

SCHEMA_VERSION = 1

# Names go into ledgers, which never shrink.
_LONGEST_NAME = 1024
_NAMES = ("study", "run", "hospital", "task", "strategy", "base", "base_sha256", "arrays_sha256")


@dataclass(frozen=True)
class RoundPlan:
    """What one hospital is asked to do in one round; public in every part.

    Attributes:
        study: Name of the study.
        run: Identifier of this run of it; a repeated request carries the same one.
        round: This round, from 1.
        rounds: Rounds the whole study will take.
        hospital: The hospital this plan is for; another one's is refused.
        task: Registered name of the task.
        strategy: Registered name of the aggregation strategy.
        base: Name of the base model; the hospital resolves it on its own.
        base_sha256: Hash of the base model's weights.
        arrays_sha256: Hash of the trainable values sent with the plan.
        privacy: Sampler, clip, noise and event.
        ledger_head: Where the coordinator last saw this hospital's ledger; signed with the plan, it
            is the outside witness that shows a ledger restored from an old copy.
        trains: Names of the arrays that may change and come back; all of them when empty.
        keeps: Names that train too and never leave the hospital.
        turns: Names that move in a local step, step after step in turn; all in every step when
            empty.
        secure: The secure sum that the update goes into, or None where it goes out by itself.
        model: How the base is put into memory, as JSON for whoever loads it.
        encoding: Name of the encoding of what comes back; rounds noised values only.
        adapter: The adapter's settings, as JSON for the task.
        training: Optimizer settings, as JSON for the trainer.
        task_config: The task's own settings, as JSON.
        schema: Version of this layout.
    """

    study: str
    run: str
    round: int
    rounds: int
    hospital: str
    task: str
    strategy: str
    base: str
    base_sha256: str
    arrays_sha256: str
    privacy: PrivacyPlan
    ledger_head: LedgerHead | None = None
    trains: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()
    turns: tuple[tuple[str, ...], ...] = ()
    secure: SecureSum | None = None
    model: Mapping[str, Any] = field(default_factory=dict)
    encoding: str = "fp32"
    adapter: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    task_config: Mapping[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        bound("schema", self.schema, self.schema == SCHEMA_VERSION, f"{SCHEMA_VERSION}")
        for name in _NAMES:
            length = len(getattr(self, name))
            bound(f"length of {name}", length, length <= _LONGEST_NAME, f"{_LONGEST_NAME} at most")
        bound("rounds", self.rounds, self.rounds >= 1, "1 or more")
        bound("round", self.round, 1 <= self.round <= self.rounds, f"in 1..{self.rounds}")
        fits = self.secure is None or self.encoding == "fp32"
        bound("encoding", self.encoding, fits, "fp32 where the update goes into a secure sum")
        if self.turns:
            moving, training = set().union(*self.turns), {*self.trains, *self.keeps}
            bound("turns", self.turns, moving == training, "made of the names in trains and keeps")
        if self.keeps and self.secure is not None:
            raise ValueError("keeps names arrays; a secure sum takes everything that trains")
        if self.privacy.mode is Mode.DISTRIBUTED:
            if self.secure is None:
                raise ValueError("mode is distributed; a share of noise needs a secure sum")
            planned = self.privacy.shares == self.secure.threshold
            bound("shares", self.privacy.shares, planned, f"threshold, {self.secure.threshold}")

    def to_bytes(self) -> bytes:
        """Canonical JSON; the plan's hash and signature are over these bytes."""
        return self._bytes

    @cached_property
    def _bytes(self) -> bytes:
        return canonical(as_table(self))

    @cached_property
    def sha256(self) -> str:
        """The plan's identity: same bytes, same plan."""
        return sha256(self.to_bytes())


def plan_from_json(document: object) -> RoundPlan:
    """The plan written by ``RoundPlan.to_bytes``.

    Raises:
        BadMessage: Unknown or missing keys, wrong types or values out of bounds.
    """
    try:
        plan = from_table(RoundPlan, document, "plan")
        _ = plan.sha256
    except BadInput as error:
        raise BadMessage(str(error)) from error
    except (ValueError, RecursionError) as error:
        raise BadMessage("plan: holds a value that no plan can be written with") from error
    return plan
