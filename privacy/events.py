"""Events: what a mechanism did to the data, as plain values an accountant can interpret later.

An event says nothing about models or parameters, only how much one unit could show. Events nest and
are written to the ledger in a versioned form, so a ledger stays readable when code moves on.
Source: the event vocabulary follows google/differential-privacy's ``dp_accounting.dp_event``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from wardround.privacy.errors import BadMessage

SCHEMA_VERSION = 1


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
class Repeated:
    """``event`` happened ``count`` times in a row, each with fresh noise and a fresh sample."""

    event: Event
    count: int

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError(f"count is {self.count}; it must be 0 or more")


@dataclass(frozen=True)
class Composed:
    """All of ``events`` happened, in any order."""

    events: tuple[Event, ...]


@dataclass(frozen=True)
class Unprotected:
    """Data declared public or generated was used without clipping or noise: epsilon is infinite."""


Event: TypeAlias = Gaussian | PoissonSampled | Repeated | Composed | Unprotected

NOTHING = Composed(())


def to_json(event: Event) -> dict[str, Any]:
    """The event as a JSON object; ``from_json`` gives it back."""
    match event:
        case Gaussian(noise_multiplier):
            return {"kind": "gaussian", "noise_multiplier": noise_multiplier}
        case PoissonSampled(sampling_rate, inner):
            return {
                "kind": "poisson-sampled",
                "sampling_rate": sampling_rate,
                "event": to_json(inner),
            }
        case Repeated(inner, count):
            return {"kind": "repeated", "count": count, "event": to_json(inner)}
        case Composed(events):
            return {"kind": "composed", "events": [to_json(inner) for inner in events]}
        case Unprotected():
            return {"kind": "unprotected"}


def from_json(data: Mapping[str, Any]) -> Event:
    """The event written by ``to_json``.

    Raises:
        BadMessage: An unknown kind, a missing or extra field, or a value out of range. An event
            that cannot be read must never be taken for nothing spent.
    """
    try:
        fields = dict(data)
        kind = fields.pop("kind")
        if kind == "composed":
            return Composed(tuple(from_json(inner) for inner in fields.pop("events")), **fields)
        if kind == "repeated":
            return Repeated(from_json(fields.pop("event")), **fields)
        if kind == "poisson-sampled":
            inner = from_json(fields.pop("event"))
            if not isinstance(inner, Gaussian):
                raise BadMessage("a poisson-sampled event must hold a gaussian one")
            return PoissonSampled(event=inner, **fields)
        if kind == "gaussian":
            return Gaussian(**fields)
        if kind == "unprotected":
            return Unprotected(**fields)
    except (KeyError, TypeError, ValueError) as error:
        raise BadMessage(f"unreadable privacy event: {error}") from error
    raise BadMessage(f"privacy event of unknown kind {kind!r}")


def compose(*events: Event) -> Event:
    """All of ``events``, flattened; equal neighbours are counted instead of listed."""
    flat: list[tuple[Event, int]] = []
    for event in events:
        _flatten(event, 1, flat)
    parts = tuple(event if count == 1 else Repeated(event, count) for event, count in flat)
    return parts[0] if len(parts) == 1 else Composed(parts)


def _flatten(event: Event, times: int, flat: list[tuple[Event, int]]) -> None:
    """Append ``event`` ``times`` times to a run-length list."""
    if times == 0:
        return
    if isinstance(event, Repeated):
        _flatten(event.event, event.count * times, flat)
    elif isinstance(event, Composed):
        for _ in range(times):
            for inner in event.events:
                _flatten(inner, 1, flat)
    elif flat and flat[-1][0] == event:
        flat[-1] = (event, flat[-1][1] + times)
    else:
        flat.append((event, times))


def primitive_counts(event: Event) -> dict[Event, int]:
    """How often each primitive (Gaussian, PoissonSampled, Unprotected) occurs inside ``event``."""
    flat: list[tuple[Event, int]] = []
    _flatten(event, 1, flat)
    counts: dict[Event, int] = {}
    for inner, count in flat:
        counts[inner] = counts.get(inner, 0) + count
    return counts


def is_protected(event: Event) -> bool:
    """Whether no part of ``event`` used data without protection."""
    return Unprotected() not in primitive_counts(event)
