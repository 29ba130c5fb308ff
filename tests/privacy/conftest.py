"""What the tests of the privacy core share."""

from __future__ import annotations

import pytest

from wardround.privacy.chain import LedgerHead
from wardround.privacy.ledger import Charge, Ledger
from wardround.privacy.mechanisms import PrivacyPlan
from wardround.privacy.plan import RoundPlan
from wardround.privacy.signing import SigningKey
from wardround.privacy.stream import SecureStream
from wardround.privacy.units import Unit


@pytest.fixture
def stream():
    """A stream from a fixed key: the same numbers every time, for tests only."""
    return SecureStream(b"a key for tests and nothing else"[:32])


@pytest.fixture
def reserve(tmp_path):
    """Charges an event to a ledger of its own and gives the reservation."""
    ledger = Ledger(tmp_path / "charged", SigningKey.generate())
    rounds = iter(range(1, 100))

    def charge(event, unit=Unit.RECORD):
        return ledger.reserve(Charge("s", "r", next(rounds), "0" * 64, "d", unit, event))

    yield charge
    ledger.close()


@pytest.fixture
def make_privacy():
    """A private plan for records; keyword arguments change it."""

    def make(**changes):
        fields = {
            "unit": Unit.RECORD,
            "clip_norm": 1.0,
            "noise_multiplier": 1.0,
            "sampling_rate": 0.05,
            "steps": 20,
            "expected_units": 10.0,
        }
        return PrivacyPlan(**fields | changes)

    return make


@pytest.fixture
def make_plan(make_privacy):
    """A round's plan; keyword arguments change it, or its privacy part."""

    def make(privacy=None, **changes):
        fields = {
            "study": "s",
            "run": "run-1",
            "round": 1,
            "rounds": 10,
            "hospital": "north",
            "task": "editing",
            "strategy": "fedavg",
            "base": "drugs",
            "base_sha256": "b" * 64,
            "arrays_sha256": "a" * 64,
            "privacy": make_privacy(**(privacy or {})),
            "ledger_head": LedgerHead(1, "c" * 64),
        }
        return RoundPlan(**fields | changes)

    return make
