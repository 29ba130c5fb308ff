"""A made-up log of care programmes shown in a hospital's portal: looked at, and enrolled in.

What a patient looks at and what she enrols in follow two hidden tastes of her condition and age for
kinds of programmes. Enrolments are meant; a share of the clicks that led to none is made by chance,
and that share is the knob: where it grows, clicks say less and enrolments as much as before.
Everything is public and repeatable.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from wardround.client.tasks.base import Record
from wardround.client.tasks.draws import Draws
from wardround.client.tasks.pwiser.columns import PROGRAMMES
from wardround.client.tasks.pwiser.records import Exposure, session_record

_GRAIN = 1 << 20
_CLICKS, _ENROLS = -1.6, -1.4  # how rare both are
_WORLD_SEED = 0
_AGES, _CONDITIONS, _PROGRAMMES, _KINDS, _WARDS = PROGRAMMES.categorical.values()


@dataclass(frozen=True)
class LogShape:
    """How large a generated study is.

    Attributes:
        patients_per_hospital: Patients, each with the same number of sessions.
        sessions: Sessions of a patient.
        exposures: Programmes shown in a session.
        noise_share: Of the clicks without an enrolment, the share that is made by chance.
        probes: Patients to evaluate on.
    """

    patients_per_hospital: int = 300
    sessions: int = 1
    exposures: int = 10
    noise_share: float = 0.3
    probes: int = 600

    def __post_init__(self) -> None:
        for name in ("patients_per_hospital", "sessions", "exposures", "probes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if not 0 <= self.noise_share < 1:
            raise ValueError(f"noise_share is {self.noise_share}; it must be in [0, 1)")


@dataclass(frozen=True)
class _Tastes:
    """How much each condition and age likes each kind: (clicks, enrolments)."""

    condition: tuple[tuple[tuple[float, float], ...], ...]
    age: tuple[tuple[tuple[float, float], ...], ...]


def make_log(shape: LogShape, hospital: str, seed: int) -> list[Record]:
    """All sessions of one hospital's patients; equal arguments give equal logs."""
    return _log(shape, hospital, shape.patients_per_hospital, Draws(seed, f"pwiser/{hospital}"))


def make_probes(shape: LogShape, seed: int) -> list[Record]:
    """Public sessions to evaluate on, with the same share of clicks by chance."""
    return _log(shape, "probe", shape.probes, Draws(seed, "pwiser/probes"))


def _log(shape: LogShape, place: str, patients: int, draws: Draws) -> list[Record]:
    tastes = _tastes()
    rows: list[tuple[str, str, Exposure]] = []
    for number in range(patients):
        patient = f"{place}-p{number:05d}"
        who = draws.below(_AGES), draws.below(_CONDITIONS), draws.below(_WARDS)
        activity = _normal(draws)
        for visit in range(shape.sessions):
            shown = draws.sample(range(_PROGRAMMES), min(shape.exposures, _PROGRAMMES))
            for position, programme in enumerate(shown):
                exposure = _exposure(tastes, who, activity, position, programme, draws)
                rows.append((f"{patient}-s{visit}", patient, exposure))
    rows = _with_chance_clicks(rows, shape.noise_share, draws)
    sessions: dict[str, tuple[str, list[Exposure]]] = {}
    for session, patient, exposure in rows:
        sessions.setdefault(session, (patient, []))[1].append(exposure)
    return [
        session_record(session, tuple(exposures), patient)
        for session, (patient, exposures) in sessions.items()
    ]


def _exposure(
    tastes: _Tastes,
    who: tuple[int, int, int],
    activity: float,
    position: int,
    programme: int,
    draws: Draws,
) -> Exposure:
    """One programme shown to one patient, and what came of it."""
    age, condition, ward = who
    kind = programme % _KINDS
    length = round(_normal(draws), 3)
    by_condition, by_age = tastes.condition[condition][kind], tastes.age[age][kind]
    click = _CLICKS + by_condition[0] + by_age[0] + 0.5 * activity - 0.1 * position
    enrol = _ENROLS + by_condition[1] + by_age[1] - 0.4 * length
    looked = _coin(_sigmoid(click), draws)
    taken = _coin(_sigmoid(enrol), draws) and looked
    numbers = (round(position / 10, 3), round(activity, 3), length)
    return Exposure((age, condition, programme, kind, ward), numbers, looked, taken)


def _with_chance_clicks(
    rows: list[tuple[str, str, Exposure]], noise_share: float, draws: Draws
) -> list[tuple[str, str, Exposure]]:
    """The log with so many clicks more that ``noise_share`` of those without enrolment are new."""
    meant = sum(exposure.click and not exposure.conversion for _, _, exposure in rows)
    skipped = sum(not exposure.click for _, _, exposure in rows)
    wanted = noise_share / (1 - noise_share) * meant
    rate = min(1.0, wanted / skipped) if skipped else 0.0
    changed = []
    for session, patient, exposure in rows:
        if not exposure.click and _coin(rate, draws):
            exposure = Exposure(exposure.categorical, exposure.numerical, True, False)
        changed.append((session, patient, exposure))
    return changed


def _tastes() -> _Tastes:
    """The world's hidden tastes; the same for every hospital and seed."""
    draws = Draws(_WORLD_SEED, "pwiser/tastes")

    def table(count: int, spread: float) -> tuple[tuple[tuple[float, float], ...], ...]:
        return tuple(
            tuple((spread * _normal(draws), 1.5 * spread * _normal(draws)) for _ in range(_KINDS))
            for _ in range(count)
        )

    return _Tastes(table(_CONDITIONS, 0.8), table(_AGES, 0.4))


def _normal(draws: Draws) -> float:
    """A standard normal by Box and Muller."""
    radius = math.sqrt(-2 * math.log((draws.below(_GRAIN) + 1) / _GRAIN))
    return radius * math.cos(2 * math.pi * draws.below(_GRAIN) / _GRAIN)


def _coin(probability: float, draws: Draws) -> bool:
    return draws.below(_GRAIN) < probability * _GRAIN


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))
