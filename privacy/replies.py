"""Stored replies: the bytes that answered a round, one file each, named by request and content.

A reply is complete and durable before anybody may see it, and it is never made twice: whoever asks
again gets these bytes. The name carries their hash, so a reply stored before a crash can be told
from a damaged one without the ledger entry that was still to come.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from wardround.privacy.disk import Disk
from wardround.privacy.errors import LedgerError
from wardround.privacy.signing import canonical, sha256

Request = tuple[str, int]


class Replies:
    """The folder of stored replies."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        """Use ``folder``, which must exist."""
        self._folder = folder
        self._disk = disk

    def sweep(self) -> None:
        """Remove parts of files that a crash left; for the ledger's one owner only."""
        for part in self._folder.glob("*.part"):
            part.unlink()

    def write(self, request: Request, reply: bytes) -> None:
        """Store a reply; ``OSError`` when the disk refuses, and then nothing is stored."""
        self._disk.write_file(self._folder / f"{_stem(request)}.{sha256(reply)}", reply)

    def find(self, request: Request) -> bytes | None:
        """The reply stored for this request, or None.

        Raises:
            LedgerError: Its bytes do not match its name, or there are two.
        """
        start = f"{_stem(request)}."
        found = sorted(name for name in os.listdir(self._folder) if name.startswith(start))
        if not found:
            return None
        if len(found) > 1:
            raise LedgerError(f"{self._folder / found[1]}: a second reply to the same request")
        return self._read(self._folder / found[0])

    def read(self, request: Request, reply_sha256: str) -> bytes:
        """The reply with this hash.

        Raises:
            LedgerError: It is lost or changed; another one is never made.
        """
        return self._read(self._folder / f"{_stem(request)}.{reply_sha256}")

    def refuse_unknown(self, charged: Iterable[Request]) -> None:
        """Raise ``LedgerError`` when a reply answers a round the ledger never charged."""
        known = {_stem(request) for request in charged}
        for path in sorted(self._folder.iterdir()):
            if path.name.partition(".")[0] not in known:
                raise LedgerError(
                    f"{path}: a reply to a round that the ledger does not hold: "
                    "the ledger was rolled back or replaced"
                )

    def _read(self, path: Path) -> bytes:
        """The bytes of one file, if they match its name."""
        try:
            reply = path.read_bytes()
        except FileNotFoundError as error:
            raise LedgerError(f"{path}: the stored reply is lost; it is not made again") from error
        if sha256(reply) != path.name.partition(".")[2]:
            raise LedgerError(f"{path}: the stored reply was changed; it is not made again")
        return reply


def _stem(request: Request) -> str:
    """A file name for a request, whatever characters its run identifier has."""
    return sha256(canonical({"run": request[0], "round": request[1]}))[:32]
