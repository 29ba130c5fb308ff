"""How often Python looks for garbage that refers to itself.

PyTorch and transformers make about a million objects that stay until the process ends. With
Python's own settings they are looked through again and again, while they are made and in every
round after that, for a quarter of the processor time of both (``docs/performance.md``). Objects
that nothing refers to are freed at once all the same; only cycles wait longer.
"""

from __future__ import annotations

import gc

_NEW_OBJECTS = 50_000  # Python's own: 700
_YOUNG_PASSES = 20  # passes over new objects for one over those that survived it


def look_seldom() -> None:
    """From now on, pass over new objects only once there are many; for the start of a process."""
    gc.set_threshold(_NEW_OBJECTS, _YOUNG_PASSES, _YOUNG_PASSES)


def spare_what_is_there() -> None:
    """Never look through what there is now, once a process.

    Only the first call does anything: a later one would spare cycles that wait to be freed.
    """
    if not gc.get_freeze_count():
        gc.freeze()
