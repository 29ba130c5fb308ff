"""Events: what a mechanism did to the data, as plain values an accountant can interpret later.

An event says nothing about models or parameters, only how much one unit could show. Events nest and
are written to the ledger in a versioned form, so a ledger stays readable when code moves on.
Source: the event vocabulary follows google/differential-privacy's ``dp_accounting.dp_event``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from wardround.privacy.errors import BadMessage

SCHEMA_VERSION = 1
_DEEPEST = 16  # events made here are three deep; whoever walks an event is spared the rest


@dataclass(frozen=True)
class Gaussian:
    """Gaussian noise of ``noise_multiplier`` times the sensitivity, on the whole data set."""

    noise_multiplier: float

    def __post_init__(self) -> None:
        if not (self.noise_multiplier > 0 and math.isfinite(self.noise_multiplier)):
            raise ValueError(
                f"noise_multiplier is {self.noise_multiplier}; it must be finite and greater than 0"
            )


@dataclass(frozen=True)
class PoissonSampled:
    """``event`` applied to a sample that each unit joins independently with ``sampling_rate``."""

    sampling_rate: float
    event: Gaussian

    def __post_init__(self) -> None:
        if not 0 <= self.sampling_rate <= 1:
            raise ValueError(f"sampling_rate is {self.sampling_rate}; it must lie in [0, 1]")


@dataclass(frozen=True)
class RandomisedResponse:
    """Each label was kept with a probability and otherwise replaced by a uniform one.

    Attributes:
        keep_probability: Chance that a label is passed on without a draw, below 1.
        classes: How many labels there are.
    """

    keep_probability: float
    classes: int

    def __post_init__(self) -> None:
        if not 0 <= self.keep_probability < 1:
            raise ValueError(f"keep_probability is {self.keep_probability}; it must lie in [0, 1)")
        if self.classes < 2:
            raise ValueError(f"classes is {self.classes}; it must be 2 or more")


@dataclass(frozen=True)
class Repeated:
    """``event`` happened ``count`` times in a row, each with fresh noise and a fresh sample."""

    event: Event
    count: int

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 0:
            raise ValueError(f"count is {self.count}; it must be a whole number, 0 or more")


@dataclass(frozen=True)
class Composed:
    """All of ``events`` happened, in any order."""

    events: tuple[Event, ...]


@dataclass(frozen=True)
class Unprotected:
    """Data declared public or generated was used without clipping or noise: epsilon is infinite."""


Primitive: TypeAlias = Gaussian | PoissonSampled | RandomisedResponse | Unprotected
Event: TypeAlias = Primitive | Repeated | Composed

NOTHING = Composed(())


def to_json(event: Event) -> dict[str, Any]:
    """The event as a JSON object with its schema version; ``from_json`` gives it back."""
    return {"schema": SCHEMA_VERSION} | _write(event)


def _write(event: Event) -> dict[str, Any]:
    """One event and those inside it, without the version."""
    match event:
        case Gaussian(noise_multiplier):
            return {"kind": "gaussian", "noise_multiplier": noise_multiplier}
        case PoissonSampled(sampling_rate, inner):
            return {
                "kind": "poisson-sampled",
                "sampling_rate": sampling_rate,
                "event": _write(inner),
            }
        case RandomisedResponse(keep_probability, classes):
            return {
                "kind": "randomised-response",
                "keep_probability": keep_probability,
                "classes": classes,
            }
        case Repeated(inner, count):
            return {"kind": "repeated", "count": count, "event": _write(inner)}
        case Composed(events):
            return {"kind": "composed", "events": [_write(inner) for inner in events]}
    return {"kind": "unprotected"}


def from_json(data: Mapping[str, Any]) -> Event:
    """The event written by ``to_json``.

    Raises:
        BadMessage: An unknown version or kind, a missing or extra field, or a value out of range.
            An event that cannot be read must never be taken for nothing spent.
    """
    try:
        fields = dict(data)
        schema = fields.pop("schema")
        if schema != SCHEMA_VERSION:
            raise BadMessage(f"privacy event of schema {schema!r}; known: {SCHEMA_VERSION}")
        return _read(fields)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BadMessage(f"unreadable privacy event: {error!r}") from error


def _read(data: Mapping[str, Any], depth: int = 0) -> Event:
    """One event and those inside it; the caller turns what goes wrong into ``BadMessage``."""
    if depth > _DEEPEST:
        raise BadMessage(f"a privacy event inside more than {_DEEPEST} others")
    fields = dict(data)
    match fields.pop("kind"):
        case "composed":
            return Composed(
                tuple(_read(inner, depth + 1) for inner in fields.pop("events")), **fields
            )
        case "repeated":
            return Repeated(_read(fields.pop("event"), depth + 1), **fields)
        case "poisson-sampled":
            inner = _read(fields.pop("event"), depth + 1)
            if not isinstance(inner, Gaussian):
                raise BadMessage("a poisson-sampled event must hold a gaussian one")
            return PoissonSampled(event=inner, **fields)
        case "gaussian":
            return Gaussian(**fields)
        case "randomised-response":
            return RandomisedResponse(**fields)
        case "unprotected":
            return Unprotected(**fields)
        case kind:
            raise BadMessage(f"privacy event of unknown kind {kind!r}")


def compose(*events: Event) -> Event:
    """All of ``events``, as a list of primitives with their counts."""
    counts: dict[Primitive, int] = {}
    for event in events:
        _count(event, 1, counts)
    return from_counts(counts)


def from_counts(counts: Mapping[Primitive, int]) -> Event:
    """The event in which each primitive happened that often."""
    parts = tuple(
        event if count == 1 else Repeated(event, count) for event, count in counts.items() if count
    )
    return parts[0] if len(parts) == 1 else Composed(parts)


def primitive_counts(event: Event) -> dict[Primitive, int]:
    """How often each primitive (Gaussian, PoissonSampled, ...) occurs inside ``event``."""
    counts: dict[Primitive, int] = {}
    _count(event, 1, counts)
    return counts


def covers(charged: Event, event: Event) -> bool:
    """Whether every primitive of ``event`` occurs in ``charged`` at least as often."""
    available = primitive_counts(charged)
    return all(available.get(part, 0) >= n for part, n in primitive_counts(event).items())


def is_protected(event: Event) -> bool:
    """Whether no part of ``event`` used data without protection."""
    return Unprotected() not in primitive_counts(event)


def _count(event: Event, times: int, counts: dict[Primitive, int]) -> None:
    """Add ``event``, ``times`` times over, to ``counts``."""
    if times == 0:
        return
    if isinstance(event, Repeated):
        _count(event.event, event.count * times, counts)
    elif isinstance(event, Composed):
        _count_all(event.events, times, counts)
    else:
        counts[event] = counts.get(event, 0) + times


def _count_all(events: Iterable[Event], times: int, counts: dict[Primitive, int]) -> None:
    """Add each of ``events``, ``times`` times over, to ``counts``."""
    for event in events:
        _count(event, times, counts)
