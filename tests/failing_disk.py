"""Disks that fail on purpose; a fixture of the same name hands this module to tests."""

from __future__ import annotations

import errno
import itertools
import os
from pathlib import Path

from wardround.privacy.disk import Disk


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
        self.durable: dict[Path, bytes] = {}  # contents before writes that were not synced
        self.renamed: dict[Path, bytes | None] = {}  # what names held before their folder was

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
        for name in [name for name in self.renamed if name.parent == path]:
            del self.renamed[name]
        return None

    def replace(self, source: Path, target: Path) -> None:
        before = target.read_bytes() if target.exists() else None
        stops = self._step()
        if stops and self.how != "after":
            return self._fail()
        super().replace(source, target)
        self.renamed.setdefault(target, before)
        self.durable.pop(target, None)
        if source in self.durable:
            self.durable[target] = self.durable.pop(source)
        return self._fail() if stops else None

    def lose_power(self, *kept: float) -> None:
        """Put back what was durable, plus a share of what was written since, file by file.

        A name that was not made durable is wholly there (a share of 1) or wholly as it was.
        """
        for path, share in zip(sorted({*self.durable, *self.renamed}), itertools.cycle(kept)):
            if path in self.renamed and share < 1:
                before = self.renamed[path]
                path.unlink() if before is None else path.write_bytes(before)
            elif path in self.durable and path.exists():
                self._tear(path, 0.0 if path in self.renamed else share)

    def _tear(self, path: Path, share: float) -> None:
        """Undo all but a share of what was written to a file and not synced."""
        before, now = self.durable[path], path.read_bytes()
        pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(before, now, strict=False))
        same = sum(1 for _ in pairs)
        fresh = now[: same + int(share * (len(now) - same))]
        path.write_bytes(fresh + before[len(fresh) :])
