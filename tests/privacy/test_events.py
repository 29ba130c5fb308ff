"""Events as data: they come back as written, and nothing unreadable counts for nothing."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.privacy._seal import SEAL
from wardround.privacy.errors import BadMessage, LedgerError
from wardround.privacy.events import (
    NOTHING,
    Composed,
    Gaussian,
    PoissonSampled,
    RandomisedResponse,
    Repeated,
    Unprotected,
    compose,
    covers,
    from_counts,
    from_json,
    is_protected,
    primitive_counts,
    to_json,
)
from wardround.privacy.reservation import Reservation

gaussians = st.builds(Gaussian, st.floats(1e-3, 1e3))
primitives = st.one_of(
    gaussians,
    st.builds(PoissonSampled, st.floats(0, 1), gaussians),
    st.builds(RandomisedResponse, st.floats(0, 0.99), st.integers(2, 9)),
    st.just(Unprotected()),
)
events = st.recursive(
    primitives,
    lambda inner: st.one_of(
        st.builds(Repeated, inner, st.integers(0, 4)),
        st.builds(Composed, st.lists(inner, max_size=3).map(tuple)),
    ),
    max_leaves=6,
)
fast = settings(deadline=None, max_examples=80)


@fast
@given(event=events)
def test_events_survive_json_and_regrouping(event):
    assert from_json(json.loads(json.dumps(to_json(event)))) == event
    counts = primitive_counts(event)
    assert primitive_counts(compose(event)) == counts
    assert {part: n for part, n in primitive_counts(from_counts(counts)).items() if n} == {
        part: n for part, n in counts.items() if n
    }


@fast
@given(one=events, other=events)
def test_composing_adds_and_covers(one, other):
    both = compose(one, other)
    assert covers(both, one)
    assert covers(both, other)
    assert is_protected(both) == (is_protected(one) and is_protected(other))
    if primitive_counts(one):
        assert not covers(NOTHING, one)


def test_composition_counts_instead_of_listing():
    step = Gaussian(2.0)
    assert compose(step, Repeated(step, 3), Composed((step, Gaussian(1.0)))) == Composed(
        (Repeated(step, 5), Gaussian(1.0))
    )
    assert compose(step) == step
    assert compose() == NOTHING
    assert compose(Repeated(step, 0)) == NOTHING
    assert primitive_counts(Repeated(Composed((step, Gaussian(1.0))), 10**9))[step] == 10**9


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"kind": "gaussian", "noise_multiplier": 1.0},
        {"schema": 2, "kind": "gaussian", "noise_multiplier": 1.0},
        {"schema": 1, "kind": "magic"},
        {"schema": 1, "kind": "gaussian"},
        {"schema": 1, "kind": "gaussian", "noise_multiplier": 0.0},
        {"schema": 1, "kind": "gaussian", "noise_multiplier": "1"},
        {"schema": 1, "kind": "gaussian", "noise_multiplier": 1.0, "free": True},
        {"schema": 1, "kind": "unprotected", "event": {}},
        {"schema": 1, "kind": "composed", "events": None},
        {"schema": 1, "kind": "repeated", "count": 2},
        {"schema": 1, "kind": "repeated", "count": -1, "event": {"kind": "unprotected"}},
        {"schema": 1, "kind": "repeated", "count": 1.5, "event": {"kind": "unprotected"}},
        {"schema": 1, "kind": "repeated", "count": True, "event": {"kind": "unprotected"}},
        {"schema": 1, "kind": "poisson-sampled", "sampling_rate": 0.1,
         "event": {"kind": "unprotected"}},
        {"schema": 1, "kind": "poisson-sampled", "sampling_rate": 1.1,
         "event": {"kind": "gaussian", "noise_multiplier": 1.0}},
        {"schema": 1, "kind": "randomised-response", "keep_probability": 1.0, "classes": 2},
        {"schema": 1, "kind": "randomised-response", "keep_probability": 0.5, "classes": 1},
    ],
)  # fmt: skip
def test_unreadable_events_are_refused(document):
    with pytest.raises(BadMessage):
        from_json(document)


def test_noise_must_be_finite_and_positive():
    for value in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="noise_multiplier is"):
            Gaussian(value)


# --- reservations -------------------------------------------------------------------------------


def reservation(event):
    return Reservation("run", 1, "0" * 64, event, seal=SEAL)


def test_a_reservation_pays_for_what_was_charged_and_no_more():
    step, other = Gaussian(2.0), Gaussian(3.0)
    charged = reservation(compose(Repeated(step, 2), other))
    charged.take(step)
    charged.take(compose(step, other))
    for event in (step, other, Gaussian(4.0)):
        with pytest.raises(LedgerError, match="charged no more"):
            charged.take(event)


def test_a_composed_event_is_taken_whole_or_not_at_all():
    charged = reservation(Gaussian(2.0))
    with pytest.raises(LedgerError):
        charged.take(compose(Gaussian(2.0), Gaussian(3.0)))
    charged.take(Gaussian(2.0))


def test_a_revoked_reservation_is_worthless():
    charged = reservation(Gaussian(2.0))
    charged.revoke()
    with pytest.raises(LedgerError):
        charged.take(Gaussian(2.0))


def test_a_history_within_the_charge_may_leave():
    charged = reservation(Repeated(Gaussian(2.0), 2))
    charged.require_covers(Gaussian(2.0))
    with pytest.raises(LedgerError, match="it stays here"):
        charged.require_covers(Repeated(Gaussian(2.0), 3))
