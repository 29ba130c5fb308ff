"""A small ledger to damage, and disks that fail on purpose."""

from __future__ import annotations

import errno
import itertools
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

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


class Crash(BaseException):
    """The process or the machine stops here."""


class FailingDisk(Disk):
    """Stops, tears or refuses the ``fail_at``-th operation that changes the disk.

    ``how`` is ``before``, ``torn`` or ``after`` for a crash around that operation, ``full`` for a
    disk that refuses it half-way and works again later, ``dead`` for one that refuses for good.
    ``lose_power`` then undoes, wholly or in part, what was not made durable.
    """

    def __init__(self, fail_at: int, how: str) -> None:
        self.fail_at, self.how, self.count = fail_at, how, 0
        self.durable: dict[Path, bytes | None] = {}  # contents before writes that were not synced

    def _step(self) -> bool:
        """Whether this is the operation to fail at."""
        self.count += 1
        if self.how == "dead" and self.count > self.fail_at:
            raise OSError(errno.EIO, "Input/output error")
        return self.count == self.fail_at

    def _fail(self) -> None:
        if self.how == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        if self.how == "dead":
            raise OSError(errno.EIO, "Input/output error")
        raise Crash

    def write(self, handle: int, data: bytes, offset: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        self.durable.setdefault(path, path.read_bytes())
        if not self._step():
            return super().write(handle, data, offset)
        if self.how == "before":
            raise Crash
        super().write(handle, data if self.how == "after" else data[: len(data) // 2], offset)
        return self._fail()

    def truncate(self, handle: int, size_bytes: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        self.durable.setdefault(path, path.read_bytes())
        if not self._step():
            return super().truncate(handle, size_bytes)
        if self.how == "after":
            super().truncate(handle, size_bytes)
        return self._fail()

    def sync(self, handle: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        if self._step():
            if self.how == "after":
                self.durable.pop(path, None)
            return self._fail()
        self.durable.pop(path, None)  # no real fsync: what is durable is decided here
        if path.is_dir():
            for name in [name for name in self.durable if name.parent == path]:
                del self.durable[name]
        return None

    def replace(self, source: Path, target: Path) -> None:
        before = target.read_bytes() if target.exists() else None
        if not self._step():
            super().replace(source, target)
        elif self.how == "after":
            super().replace(source, target)
            self.durable[target] = before
            raise Crash
        else:
            self._fail()
        self.durable[target] = before

    def lose_power(self, *kept: float) -> None:
        """Put back what was durable, plus a share of what was written since, file by file."""
        for (path, before), share in zip(self.durable.items(), itertools.cycle(kept)):
            if not path.exists():
                continue
            now = path.read_bytes()
            if before is None:
                if share < 1:
                    path.unlink()
                continue
            pairs = itertools.takewhile(
                lambda pair: pair[0] == pair[1], zip(before, now, strict=False)
            )
            same = sum(1 for _ in pairs)
            fresh = now[: same + int(share * (len(now) - same))]
            path.write_bytes(fresh + before[len(fresh) :])


class Lab:
    """What the ledger tests share."""

    Crash = Crash
    Disk = FailingDisk
    charge = staticmethod(charge)
    reply = staticmethod(reply)
    step = STEP


@pytest.fixture(scope="session")
def lab() -> type[Lab]:
    """Charges, replies and failing disks."""
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
def filled(tmp_path: Path, key: SigningKey, clock: Ticking) -> Path:
    """A closed ledger of three rounds, two of them answered."""
    ledger = Ledger(tmp_path / "filled", key, clock, FailingDisk(0, "before"))
    for number in (1, 2, 3):
        reservation = ledger.reserve(charge(number))
        if number < 3:
            ledger.commit(reservation, reply(number))
    ledger.close()
    return tmp_path / "filled"
