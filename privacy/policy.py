"""The hospital's policy: what its custodian will do for anybody, compiled into one decision.

Law 3: the hospital outranks the coordinator. A plan may ask for less risk than the policy allows,
never for more. A refusal names every reason, and depends on public things only: the plan, the
policy, the declared number of units and the events already charged; never on the data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from wardround.privacy.accountant import epsilon
from wardround.privacy.errors import BudgetExceeded, PolicyRefused
from wardround.privacy.events import NOTHING, Event, compose
from wardround.privacy.plan import Mechanism, Mode, RoundPlan
from wardround.privacy.tables import from_table, read_toml, refuse_unknown
from wardround.privacy.units import Unit


class Provenance(StrEnum):
    """Whose data it is; only public and generated data may ever be used without protection."""

    PRIVATE = "private"
    PUBLIC = "public"
    GENERATED = "generated"


@dataclass(frozen=True)
class Budget:
    """The most this data set may ever cost one unit, over all studies.

    Attributes:
        epsilon: Upper bound on the composed epsilon.
        delta: The delta it is computed at.
        unit: Who is protected.
    """

    epsilon: float
    delta: float
    unit: Unit = Unit.RECORD

    def __post_init__(self) -> None:
        if not (self.epsilon > 0 and math.isfinite(self.epsilon)):
            raise ValueError(f"epsilon is {self.epsilon}; it must be greater than 0")
        if not 0 < self.delta < 1:
            raise ValueError(f"delta is {self.delta}; it must lie strictly between 0 and 1")


@dataclass(frozen=True)
class Allow:
    """What a plan may ask for.

    Attributes:
        tasks: Registered task names.
        bases: SHA-256 of base-model weights; nothing else is loaded.
        strategies: Registered strategy names.
        min_noise_multiplier: Less noise than this, in units of the sensitivity, is refused.
        max_rounds: Longer studies are refused.
        min_units: A data set with fewer declared units takes no part.
        mechanisms: What a round may do to the data; DP-LoRA as published, and randomised response
            that protects labels alone, only where they are listed.
        honest_hospitals: The most hospitals, this one included, whose noise a plan may count on
            when noise is distributed; 1 charges what holds against all others together.
        secure_sums_only: Whether updates that go out by themselves are refused.
    """

    tasks: tuple[str, ...]
    bases: tuple[str, ...]
    strategies: tuple[str, ...]
    min_noise_multiplier: float
    max_rounds: int
    min_units: int
    mechanisms: tuple[Mechanism, ...] = (
        Mechanism.DP_SGD,
        Mechanism.WHOLE_UPDATE,
        Mechanism.ONE_SHOT,
    )
    honest_hospitals: int = 1
    secure_sums_only: bool = False

    def __post_init__(self) -> None:
        for name in ("tasks", "bases", "strategies", "mechanisms"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; a policy that allows nothing is refused")
        for name in ("min_noise_multiplier", "max_rounds", "min_units", "honest_hospitals"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be greater than 0")


@dataclass(frozen=True)
class Data:
    """The data set the policy speaks of.

    Attributes:
        name: What the ledger calls it; one budget a name.
        declared_units: How many units it holds, rounded as the hospital likes: a public figure that
            sets the denominator, so that the exact number never has to leave.
        provenance: Whose data it is.
    """

    name: str
    declared_units: int
    provenance: Provenance = Provenance.PRIVATE

    def __post_init__(self) -> None:
        if not self.declared_units >= 1:
            raise ValueError(f"declared_units is {self.declared_units}; it must be 1 or more")


@dataclass(frozen=True)
class Decision:
    """Allowed, or refused with every reason.

    Attributes:
        reasons: Empty when allowed.
        over_budget: Whether the budget is among the reasons.
        epsilon_after: Epsilon over the data set's life once this plan has run.
    """

    reasons: tuple[str, ...]
    over_budget: bool
    epsilon_after: float

    @property
    def allowed(self) -> bool:
        """Whether the plan may run."""
        return not self.reasons

    def enforce(self) -> None:
        """Raise ``BudgetExceeded`` or ``PolicyRefused`` with every reason, unless allowed."""
        if self.reasons:
            kind = BudgetExceeded if self.over_budget else PolicyRefused
            raise kind("; ".join(self.reasons))


@dataclass(frozen=True)
class Policy:
    """A hospital's rules, from ``policy.toml``."""

    budget: Budget
    allow: Allow
    data: Data

    @classmethod
    def read(cls, path: Path) -> Policy:
        """The policy in ``path``; ``BadInput`` names the table and key that cannot be used."""
        tables = read_toml(path)
        refuse_unknown(tables, ("budget", "allow", "data"), str(path))
        parts = {
            name: from_table(kind, tables.get(name, {}), f"{path} [{name}]")
            for name, kind in (("budget", Budget), ("allow", Allow), ("data", Data))
        }
        return cls(**parts)  # type: ignore[arg-type]

    def decide(
        self,
        plan: RoundPlan,
        spent: Event,
        charged: bool = False,
        account: Callable[[Event, float], float] = epsilon,
    ) -> Decision:
        """Whether ``plan`` may run on a data set that has ``spent`` this much so far.

        ``charged`` says that ``spent`` holds this very round already, so it costs nothing more.
        """
        reasons = list(self._objections(plan))
        after = 0.0
        over = False
        if plan.privacy.mode is not Mode.NONE:
            cost = NOTHING if charged else plan.privacy.event
            after = account(compose(spent, cost), self.budget.delta)
            over = after > self.budget.epsilon
            if over:
                reasons.append(
                    f"[budget] epsilon allows {self.budget.epsilon:g} for data set "
                    f"{self.data.name!r}; round {plan.round} would bring it to {after:.4f}"
                )
        return Decision(tuple(reasons), over, after)

    def _objections(self, plan: RoundPlan) -> Iterator[str]:
        """Every rule but the budget that ``plan`` breaks."""
        allow, privacy = self.allow, plan.privacy
        if plan.task not in allow.tasks:
            yield f"[allow] tasks does not list {plan.task!r}"
        if plan.base_sha256 not in allow.bases:
            yield f"[allow] bases does not list {plan.base!r} (sha256 {plan.base_sha256[:12]}…)"
        if plan.strategy not in allow.strategies:
            yield f"[allow] strategies does not list {plan.strategy!r}"
        if plan.rounds > allow.max_rounds:
            yield f"[allow] max_rounds is {allow.max_rounds}; the plan takes {plan.rounds}"
        if self.data.declared_units < allow.min_units:
            yield f"[allow] min_units is {allow.min_units}; {self.data.declared_units} are declared"
        if self.budget.unit is not Unit.SITE and self.budget.delta * self.data.declared_units >= 1:
            yield (
                f"[budget] delta is {self.budget.delta:g}; with {self.data.declared_units} units "
                f"it must be below {1 / self.data.declared_units:g}"
            )
        if privacy.mechanism not in allow.mechanisms:
            yield f"[allow] mechanisms does not list {privacy.mechanism.value!r}"
        if privacy.unit is not self.budget.unit:
            yield f"[budget] unit is {self.budget.unit}; the plan protects a {privacy.unit}"
        if privacy.honest_hospitals > allow.honest_hospitals:
            yield (
                f"[allow] honest_hospitals is {allow.honest_hospitals}; the plan counts on the "
                f"noise of {privacy.honest_hospitals}"
            )
        if allow.secure_sums_only and plan.secure is None:
            yield "[allow] secure_sums_only is true; the plan has updates sent by themselves"
        if privacy.mode is Mode.NONE:
            if self.data.provenance is Provenance.PRIVATE:
                yield "[data] provenance is private; mode none needs public or generated data"
        elif privacy.paid_once:
            return  # labels are not noised by a multiplier; mechanisms and the budget decide
        elif privacy.effective_multiplier < allow.min_noise_multiplier:
            yield (
                f"[allow] min_noise_multiplier is {allow.min_noise_multiplier:g}; "
                f"the plan adds {privacy.effective_multiplier:g}"
            )
