"""Garbage is looked for seldom, and found all the same."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from wardround.study.garbage import look_seldom, spare_what_is_there


class Loop:
    """Refers to itself, so that only the collector can free it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = gc.get_threshold()
    gc.unfreeze()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


def test_imports_are_looked_through_far_less_often() -> None:
    """Passes while 20,000 objects are made that stay: 28 by Python's own settings."""
    passes: list[str] = []
    gc.callbacks.append(lambda phase, info: passes.append(phase))
    try:
        gc.set_threshold(700, 10, 10)
        kept = [[] for _ in range(20_000)]
        usual, passes[:] = len(passes), []
        look_seldom()
        kept += [[] for _ in range(20_000)]
        assert usual >= 40  # a start and a stop each
        assert len(passes) <= 2
    finally:
        gc.callbacks.pop()


def test_what_is_spared_stays_and_what_comes_later_is_freed() -> None:
    spared = Loop()
    spare_what_is_there()
    before, later = weakref.ref(spared), Loop()
    after = weakref.ref(later)
    del spared, later
    gc.collect()
    assert before() is not None
    assert after() is None


def test_only_the_first_call_spares_anything() -> None:
    """Runs in one process follow each other; what one leaves behind must not stay for ever."""
    spare_what_is_there()
    left = Loop()
    gone = weakref.ref(left)
    spare_what_is_there()
    del left
    gc.collect()
    assert gone() is None
