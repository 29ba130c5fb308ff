"""Plans: what a coordinator asks one hospital to do in one round, frozen, hashed and signed.

``PrivacyPlan`` holds sampler, clip, noise and accounting event together, so what runs is what is
accounted (law 4; the idea of jax_privacy's ``DPExecutionPlan``). ``RoundPlan`` adds the public
facts a policy decides on. Model, adapter and task settings ride along as JSON, unread here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import torch

from wardround.privacy.chain import LedgerHead
from wardround.privacy.clipping import Clipped, ClippedSum
from wardround.privacy.errors import BadInput, BadMessage
from wardround.privacy.events import Event, Gaussian, PoissonSampled, Repeated, Unprotected
from wardround.privacy.noise import Noised, add_gaussian, pass_unprotected
from wardround.privacy.reservation import Reservation
from wardround.privacy.signing import canonical, sha256
from wardround.privacy.stream import SecureStream
from wardround.privacy.tables import from_table
from wardround.privacy.units import Adjacency, Unit

SCHEMA_VERSION = 1


class Mode(StrEnum):
    """Who adds noise: each hospital its own, or nobody (data declared public or generated)."""

    LOCAL = "local"
    NONE = "none"


@dataclass(frozen=True)
class PrivacyPlan:
    """DP-SGD for one hospital and one round: sample, clip, sum, add noise, divide; ``steps`` times.

    Attributes:
        unit: Who is protected.
        clip_norm: Longest joint L2 norm one unit may contribute to a step.
        noise_multiplier: Noise standard deviation in units of the sensitivity; 0 in mode none.
        sampling_rate: Probability with which each unit joins a step.
        steps: Optimizer steps in this round.
        expected_units: Public denominator: ``sampling_rate`` times the declared number of units.
        mode: Who adds noise.
        adjacency: Which data sets are neighbours; the accountant knows add/remove.
    """

    unit: Unit
    clip_norm: float
    noise_multiplier: float
    sampling_rate: float
    steps: int
    expected_units: float
    mode: Mode = Mode.LOCAL
    adjacency: Adjacency = Adjacency.ADD_REMOVE

    def __post_init__(self) -> None:
        _bound("clip_norm", self.clip_norm, self.clip_norm > 0, "greater than 0")
        if self.mode is Mode.NONE:
            least = self.noise_multiplier == 0
            _bound("noise_multiplier", self.noise_multiplier, least, "0 in mode none")
        else:
            positive = self.noise_multiplier > 0
            _bound("noise_multiplier", self.noise_multiplier, positive, "greater than 0")
        _bound("sampling_rate", self.sampling_rate, 0 < self.sampling_rate <= 1, "in (0, 1]")
        _bound("steps", self.steps, self.steps >= 1, "1 or more")
        _bound("expected_units", self.expected_units, self.expected_units > 0, "greater than 0")
        if self.adjacency is not Adjacency.ADD_REMOVE:
            raise ValueError("adjacency must be add-remove: Poisson sampling is accounted for it")

    @property
    def step_event(self) -> Event:
        """What one step does to the data."""
        if self.mode is Mode.NONE:
            return Unprotected()
        return PoissonSampled(self.sampling_rate, Gaussian(self.noise_multiplier))

    @property
    def event(self) -> Event:
        """What the whole round does to the data; this is what the ledger charges."""
        return Repeated(self.step_event, self.steps)

    def select(self, units: int, stream: SecureStream) -> list[int]:
        """Positions of the units that join this step: an independent coin each (Poisson)."""
        return [int(i) for i in stream.bernoulli(units, self.sampling_rate).nonzero()[0]]

    def clipped_sum(self, shapes: Mapping[str, torch.Size]) -> ClippedSum:
        """An empty sum to add this step's contributions to."""
        bound = math.inf if self.mode is Mode.NONE else self.clip_norm
        return ClippedSum(shapes, bound, self.unit)

    def privatise(self, clipped: Clipped, reservation: Reservation, stream: SecureStream) -> Noised:
        """The noised mean gradient of one step: sum, noise, division by the public denominator.

        Privacy: costs ``step_event``, which ``reservation`` must have charged.
        """
        if self.mode is Mode.NONE:
            noised = pass_unprotected(clipped, self.step_event, reservation)
        else:
            noised = add_gaussian(
                clipped,
                self.step_event,
                self.noise_multiplier,
                self.adjacency,
                reservation,
                stream,
            )
        return noised.then(
            lambda arrays: {name: total / self.expected_units for name, total in arrays.items()}
        )


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
        adapter: What trains, as JSON for the task.
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
    adapter: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    task_config: Mapping[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        _bound("schema", self.schema, self.schema == SCHEMA_VERSION, f"{SCHEMA_VERSION}")
        _bound("rounds", self.rounds, self.rounds >= 1, "1 or more")
        _bound("round", self.round, 1 <= self.round <= self.rounds, f"in 1..{self.rounds}")

    def to_bytes(self) -> bytes:
        """Canonical JSON; the plan's hash and signature are over these bytes."""
        return canonical(asdict(self))

    @property
    def sha256(self) -> str:
        """The plan's identity: same bytes, same plan."""
        return sha256(self.to_bytes())


def plan_from_json(document: object) -> RoundPlan:
    """The plan written by ``RoundPlan.to_bytes``.

    Raises:
        BadMessage: Unknown or missing keys, wrong types or values out of bounds.
    """
    try:
        return from_table(RoundPlan, document, "plan")
    except BadInput as error:
        raise BadMessage(str(error)) from error


def _bound(name: str, value: object, holds: bool, bound: str) -> None:
    """Raise ``ValueError`` naming field, value and bound unless it holds."""
    if not holds:
        raise ValueError(f"{name} is {value}; it must be {bound}")
