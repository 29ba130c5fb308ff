"""The parts of ``[strategy]`` that go with every averaging strategy, and what excludes what.

A table names them beside the strategy: ``server = "adam"``, ``robust = "median"``, ``buffer = 4``.
What cannot be combined is refused with the reason before anything is loaded or sent; so this module
imports no torch. Knows nothing of how any part works.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from wardround.privacy.errors import BadInput
from wardround.privacy.tables import from_table


class Server(StrEnum):
    """What the coordinator makes of the combined change."""

    NONE = "none"
    MOMENTUM = "momentum"
    ADAM = "adam"
    YOGI = "yogi"


class Robust(StrEnum):
    """How changes are combined when some hospitals may be malicious."""

    NONE = "none"
    NORM_BOUNDED_MEAN = "norm-bounded-mean"
    MEDIAN = "median"
    TRIMMED_MEAN = "trimmed-mean"
    GEOMETRIC_MEDIAN = "geometric-median"
    KRUM = "krum"
    MULTI_KRUM = "multi-krum"


class NoiseCorrection(StrEnum):
    """Where a server optimiser gets the variance from that it takes out of squares."""

    PLAN = "plan"  # from the plan, exactly; only where hospitals' steps are linear in gradients
    BETWEEN = "between"  # from how hospitals differ, which includes how their data differ
    NONE = "none"  # squares stay as they are


class Weights(StrEnum):
    """How much each hospital counts."""

    UNIFORM = "uniform"
    RECORDS = "records"


@dataclass(frozen=True)
class Parts:
    """What may be exchanged in an averaging strategy.

    Attributes:
        server: What is made of the combined change.
        server_learning_rate: Of the server; 1 with momentum and 0.01 otherwise when not given.
        server_momentum: For momentum.
        server_beta1: For adam and yogi: decay of the mean of changes.
        server_beta2: For adam and yogi: decay of the mean of squares.
        server_damping: For adam and yogi: added to the root of the squares.
        noise_correction: How noise is taken out of their squares.
        robust: How changes are combined.
        malicious: How many hospitals a robust rule holds against.
        norm_bound: For norm-bounded-mean: longest change that counts in full; 1.1 times the round's
            median length when not given.
        buffer: Answers after which a round ends; all that are asked when not given.
        staleness_power: A late answer of age a counts ``(1 + a) ** -power``.
        scaffold: Whether hospitals correct their steps by control variates.
        weights: How much each hospital counts.
        worst_hospital: Hospitals with larger losses count more: how far a loss of 1 moves the
            logarithm of a hospital's weight in a round; needs ``[privacy.losses]``.
    """

    server: Server = Server.NONE
    server_learning_rate: float | None = None
    server_momentum: float = 0.9
    server_beta1: float = 0.9
    server_beta2: float = 0.99
    server_damping: float = 1e-3
    noise_correction: NoiseCorrection = NoiseCorrection.PLAN
    robust: Robust = Robust.NONE
    malicious: int = 1
    norm_bound: float | None = None
    buffer: int | None = None
    staleness_power: float = 0.5
    scaffold: bool = False
    weights: Weights = Weights.UNIFORM
    worst_hospital: float | None = None

    def __post_init__(self) -> None:
        _check("malicious", self.malicious, self.malicious >= 0, "0 or more")
        _check("buffer", self.buffer, self.buffer is None or self.buffer >= 1, "1 or more")
        power = self.staleness_power
        _check("staleness_power", power, 0 <= power < float("inf"), "0 or more")
        bound = self.norm_bound
        _check("norm_bound", bound, bound is None or bound > 0, "greater than 0")
        step = self.worst_hospital
        _check("worst_hospital", step, step is None or 0 < step < float("inf"), "greater than 0")
        if self.weights is not Weights.UNIFORM:
            raise ValueError(
                "weights is 'records': a weight tells how many records a hospital has, which is "
                "secret; expected 'uniform'"
            )

    @property
    def exchanged(self) -> bool:
        """Whether any part is another than the strategy's own."""
        exchanged = (self.server is not Server.NONE, self.robust is not Robust.NONE)
        return any(exchanged) or self.buffer is not None or self.scaffold

    @property
    def corrects(self) -> bool:
        """Whether noise has to be taken out of squares."""
        adaptive = self.server in (Server.ADAM, Server.YOGI)
        return adaptive and self.noise_correction is not NoiseCorrection.NONE

    @property
    def least(self) -> int:
        """Fewest answers with which the robust rule's bound holds."""
        if self.robust in (Robust.KRUM, Robust.MULTI_KRUM):
            return 2 * self.malicious + 3
        given = self.robust is Robust.NORM_BOUNDED_MEAN and self.norm_bound is not None
        return 1 if self.robust is Robust.NONE or given else 2 * self.malicious + 1


@dataclass(frozen=True)
class Surrounding:
    """What a study has beside its strategy, as far as parts depend on it.

    Attributes:
        hospitals: How many take part.
        secure_aggregation: Whether the coordinator sees sums only.
        needs_single_updates: Why the strategy's aggregate is no mean of changes; empty if it is.
        alternates: What makes one round's changes unlike another's, as the strategy's traits say.
        mixed_ranks: Whether hospitals have different ranks.
        noise_known: Whether plan and training settings fix the noise in a change.
        losses: Whether hospitals release their losses, noised.
        linear_steps: Whether a hospital's change is its learning rate times a sum of gradients.
        reach: That learning rate times the steps of a round.
    """

    hospitals: int
    secure_aggregation: bool = False
    needs_single_updates: str = ""
    alternates: str = ""
    mixed_ranks: bool = False
    noise_known: bool = True
    losses: bool = False
    linear_steps: bool = True
    reach: float = 1.0


def split_settings(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings that are parts, and the strategy's own."""
    names = {field.name for field in dataclasses.fields(Parts)}
    parts = {key: value for key, value in settings.items() if key in names}
    return parts, {key: value for key, value in settings.items() if key not in names}


def read_parts(settings: Mapping[str, Any], where: str) -> Parts:
    """The parts among the settings; ``BadInput`` names the one that cannot be used."""
    return from_table(Parts, split_settings(settings)[0], where)


def require_compatible(parts: Parts, around: Surrounding, where: str) -> None:
    """Raise ``BadInput`` with the first reason why these parts cannot be used here."""
    for reason in _objections(parts, around):
        raise BadInput(f"{where} {reason}")


def _objections(parts: Parts, around: Surrounding) -> Iterator[str]:
    """Every combination that does not work, in words."""
    if parts.exchanged and around.needs_single_updates:
        yield (
            "server, robust, buffer and scaffold go with strategies that average changes; this "
            f"one does not: {around.needs_single_updates}"
        )
    if parts.exchanged and around.mixed_ranks:
        yield "server, robust, buffer and scaffold need [hospitals] ranks to be equal"
    yield from _worst_objections(parts, around)
    yield from _robust_objections(parts, around)
    yield from _server_objections(parts, around)
    yield from _late_objections(parts, around)
    if parts.scaffold and around.secure_aggregation:
        yield "scaffold keeps a control for every hospital, which a secure sum does not give"
    if parts.scaffold and not around.linear_steps:
        yield (
            "scaffold reads a hospital's mean gradient off its change; that needs [training] "
            "optimizer = 'sgd' at a constant rate without momentum, weight_decay or proximal_mu"
        )
    if parts.scaffold and parts.robust is not Robust.NONE:
        yield (
            f"robust is {parts.robust.value!r} beside scaffold: a malicious hospital's control "
            "would reach all others unchecked"
        )
    if parts.scaffold and parts.buffer is not None:
        yield "scaffold reads controls off this round's changes; buffer takes those of others too"
    if parts.scaffold and around.alternates:
        yield (
            "scaffold compares gradients of different rounds; this strategy's change their meaning "
            f"with the {around.alternates}"
        )


def _worst_objections(parts: Parts, around: Surrounding) -> Iterator[str]:
    if parts.worst_hospital is None:
        if around.losses:
            yield "worst_hospital is missing, but [privacy.losses] has losses released"
        return
    if not around.losses:
        yield "worst_hospital weighs by losses; say in [privacy.losses] how they are released"
    if parts.exchanged:
        yield "worst_hospital goes with no server, robust, buffer or scaffold: all want the weights"
    if around.needs_single_updates or around.mixed_ranks:
        yield "worst_hospital goes with strategies that average changes of equal rank"


def _robust_objections(parts: Parts, around: Surrounding) -> Iterator[str]:
    if parts.robust is Robust.NONE:
        return
    rule = f"robust is {parts.robust.value!r}"
    if around.secure_aggregation:
        yield f"{rule}, which looks at single updates; secure aggregation shows only their sum"
    available = around.hospitals if parts.buffer is None else parts.buffer
    if available < parts.least:
        of = "hospitals" if parts.buffer is None else "answers a buffer"
        yield (
            f"{rule} with malicious = {parts.malicious}, which needs {parts.least} answers; there "
            f"are {available} {of}"
        )


def _server_objections(parts: Parts, around: Surrounding) -> Iterator[str]:
    if parts.server is not Server.NONE and around.alternates == "basis":
        yield (
            f"server is {parts.server.value!r}, which adds up changes of many rounds; this "
            "strategy writes them in another basis each round"
        )
    if not parts.corrects:
        return
    which = f"noise_correction is {parts.noise_correction.value!r}"
    if parts.noise_correction is NoiseCorrection.BETWEEN:
        if around.secure_aggregation:
            yield f"{which}, which compares single updates; secure aggregation shows only their sum"
        if parts.robust is not Robust.NONE:
            yield f"{which}, which is known of means only; robust is {parts.robust.value!r}"
        return
    if around.alternates == "steps":
        yield f"{which}, but arrays that move in turn do not all carry the same noise here"
    if not around.noise_known:
        yield (
            f"{which}, but the noise in a change is not known beforehand here (Adam at the "
            "hospital, adaptive clipping, or another schedule); use [training] optimizer = 'sgd', "
            "or noise_correction = 'between' or 'none'"
        )
    if parts.robust in (Robust.MEDIAN, Robust.TRIMMED_MEAN):
        yield (
            f"{which}, but how much noise robust = {parts.robust.value!r} lets through depends on "
            "the data; use a rule with weights, or noise_correction = 'none'"
        )


def _late_objections(parts: Parts, around: Surrounding) -> Iterator[str]:
    if parts.buffer is None:
        return
    if around.secure_aggregation:
        yield "buffer takes answers of different rounds; a secure sum needs all of one round"
    if around.alternates:
        yield (
            "buffer takes answers of different rounds; this strategy's change their meaning with "
            f"the {around.alternates}, so late answers could not be counted"
        )
    if parts.buffer > around.hospitals:
        yield f"buffer is {parts.buffer}; there are only {around.hospitals} hospitals to fill it"


def _check(name: str, value: object, holds: bool, bound: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value}; it must be {bound}")
