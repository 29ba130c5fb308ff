"""What a process has started, as Linux shows it under ``/proc``.

A process may end while one looks; that is the only thing passed over here. What may not be looked
at is an error, so that nobody counts less than there is.
"""

from __future__ import annotations

from pathlib import Path

PROC = Path("/proc")
ENDED = FileNotFoundError, ProcessLookupError  # what looking at a process that is gone raises


def children_of(process: int) -> list[int]:
    """Processes that ``process`` has started and that still run, oldest first."""
    try:
        tasks = list((PROC / f"{process}" / "task").iterdir())
        found = [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
    except ENDED:
        return []
    return [pid for pid in found if _runs(pid)]


def with_descendants(process: int) -> list[int]:
    """A process and everything below it that still runs."""
    below = [pid for child in children_of(process) for pid in with_descendants(child)]
    return [process, *below]


def _runs(process: int) -> bool:
    """Whether a process is there, and has not ended without its parent having looked."""
    try:  # pid (name) state parent ...; a name may hold blanks
        after_name = (PROC / f"{process}" / "stat").read_text().rpartition(")")[2]
    except ENDED:
        return False
    return after_name.split()[0] not in {"Z", "X"}
