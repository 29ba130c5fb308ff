"""The disk as the ledger sees it: append, overwrite in place, replace, and make it durable.

Every call that changes a file goes through one object, so that a test can stop the world before,
after or inside any of them. Knows nothing of entries or signatures. On a journalling file system a
file survives power loss once it was fsynced, its name once the folder was.
"""

from __future__ import annotations

import os
from pathlib import Path


class Disk:
    """The operating system's own calls; each raises ``OSError`` when the disk refuses."""

    def write(self, handle: int, data: bytes, offset: int) -> None:
        """Write all of ``data`` at ``offset``; on an error some of it may be there."""
        while data:
            written = os.pwrite(handle, data, offset)
            data, offset = data[written:], offset + written

    def truncate(self, handle: int, size_bytes: int) -> None:
        """Cut the file to ``size_bytes``."""
        os.ftruncate(handle, size_bytes)

    def sync(self, handle: int) -> None:
        """Return once the file's contents would survive power loss."""
        os.fsync(handle)

    def replace(self, source: Path, target: Path) -> None:
        """Give ``source`` the name ``target`` in one step."""
        source.replace(target)

    def sync_folder(self, folder: Path) -> None:
        """Return once the names in ``folder`` would survive power loss."""
        handle = os.open(folder, os.O_RDONLY)
        try:
            self.sync(handle)
        finally:
            os.close(handle)

    def write_file(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        """A file that is complete and durable the moment ``path`` names it.

        Raises:
            OSError: ``path`` is what it was before; what was written so far is removed.
        """
        part = path.with_name(path.name + ".part")
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        try:
            self.write(handle, data, 0)
            self.sync(handle)
            self.replace(part, path)
        except OSError:
            part.unlink(missing_ok=True)
            raise
        finally:
            os.close(handle)
        self.sync_folder(path.parent)
