"""A small ledger to damage."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import pytest

from wardround.privacy.disk import Disk
from wardround.privacy.events import Gaussian, PoissonSampled, Repeated
from wardround.privacy.ledger import Charge, Ledger
from wardround.privacy.signing import SigningKey, sha256
from wardround.privacy.units import Unit

STEP = PoissonSampled(0.05, Gaussian(1.0))


def charge(round_number: int, **changes: object) -> Charge:
    """The charge of one round of 20 steps."""
    fields: dict[str, object] = {
        "study": "lab",
        "run": "run-1",
        "round": round_number,
        "plan_sha256": sha256(f"plan {round_number}".encode()),
        "dataset": "ward",
        "unit": Unit.PATIENT,
        "event": Repeated(STEP, 20),
    }
    return Charge(**fields | changes)  # type: ignore[arg-type]


def reply(round_number: int) -> bytes:
    """The answer of one round."""
    return f"reply {round_number} ".encode() * 20


class Ticking:
    """A clock that a test can turn."""

    def __init__(self) -> None:
        self.time = datetime(2030, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.time += timedelta(seconds=1)
        return self.time


class Lab:
    """What the ledger tests share."""

    Crash: type[BaseException]
    Disk: type[Disk]
    charge = staticmethod(charge)
    reply = staticmethod(reply)
    step = STEP


@pytest.fixture(scope="session")
def lab(failing_disk: ModuleType) -> type[Lab]:
    """Charges, replies and failing disks."""
    Lab.Crash, Lab.Disk = failing_disk.Crash, failing_disk.FailingDisk
    return Lab


@pytest.fixture(scope="session")
def key() -> SigningKey:
    """One hospital's key."""
    return SigningKey.generate()


@pytest.fixture
def clock() -> Ticking:
    """A clock of its own for each test."""
    return Ticking()


@pytest.fixture
def filled(tmp_path: Path, key: SigningKey, clock: Ticking, lab: type[Lab]) -> Path:
    """A closed ledger of three rounds, two of them answered."""
    ledger = Ledger(tmp_path / "filled", key, clock, lab.Disk(0, "before"))
    for number in (1, 2, 3):
        reservation = ledger.reserve(charge(number))
        if number < 3:
            ledger.commit(reservation, reply(number))
    ledger.close()
    return tmp_path / "filled"
