"""How long the next epsilon takes after a ledger has grown long and varied."""

from __future__ import annotations

import time
from typing import Any

from wardround.privacy.accountant import Accountant, accountant_name
from wardround.privacy.events import Event, Gaussian, PoissonSampled, compose


def accountant_benchmark(events: int, delta: float = 1e-5) -> dict[str, Any]:
    """Seconds for the first epsilon over ``events`` different ones, and for each of the next five.

    Sampling rates and noise multipliers all differ, as over many studies with hospitals that grow.
    """
    accountant = Accountant()
    history = [_event(number, events) for number in range(events)]
    started = time.perf_counter()
    first = accountant.epsilon(compose(*history), delta)
    first_s = time.perf_counter() - started
    queries = []
    for number in range(5):
        history.append(PoissonSampled(0.01, Gaussian(1.5 + number / 7)))
        whole = compose(*history)
        started = time.perf_counter()
        last = accountant.epsilon(whole, delta)
        queries.append(time.perf_counter() - started)
    return {
        "events": events,
        "first_query_s": round(first_s, 3),
        "next_query_s": [round(seconds, 4) for seconds in queries],
        "epsilon": [first, last],
        "accountant": accountant_name(),
    }


def _event(number: int, events: int) -> Event:
    """The ``number``-th of many events that are all different."""
    share = number / events
    return PoissonSampled(0.001 + 0.009 * share, Gaussian(2 + 6 * share))
