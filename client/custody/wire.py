"""How requests and replies travel between a relay and a custodian: parts, cut into chunks.

The gRPC service ``wardround.Custodian`` has three methods, ``declare``, ``train`` and
``secure_sum``, each a stream of raw byte chunks both ways. Joined, the chunks of a request are its
parts, each after its length in 8 bytes, most significant first; a reply is one part. Chunks keep
any size of update below gRPC's limit on a message (4 MiB unless set). Nothing is read of what is
carried: what matters is signed inside.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from wardround.privacy.errors import BadMessage

SERVICE = "wardround.Custodian"
PARTS = {"declare": 0, "train": 2, "secure_sum": 2}  # parts of a request, by method
CHUNK_BYTES = 1 << 20
MOST_BYTES = 1 << 30  # of a whole request or reply, unless the hospital says otherwise

_LENGTH = struct.Struct(">Q")


def to_chunks(*parts: bytes) -> Iterator[bytes]:
    """Chunks of at most ``CHUNK_BYTES`` bytes that ``read_parts`` makes ``parts`` of again."""
    for part in parts:
        yield _LENGTH.pack(len(part))
        view = memoryview(part)
        for start in range(0, len(part), CHUNK_BYTES):
            yield bytes(view[start : start + CHUNK_BYTES])


def read_parts(chunks: Iterable[bytes], count: int, most_bytes: int = MOST_BYTES) -> list[bytes]:
    """Exactly ``count`` parts, however they were cut.

    Raises:
        BadMessage: More than ``most_bytes`` bytes, which are not read to the end; too few; or
            more than ``count`` parts.
    """
    joined = bytearray()
    for chunk in chunks:
        if len(joined) + len(chunk) > most_bytes:
            raise BadMessage(f"more than {most_bytes} bytes, the most that is taken at once")
        joined += chunk
    parts, at = [], 0
    for number in range(1, count + 1):
        begins = at + _LENGTH.size
        if begins > len(joined):
            raise BadMessage(f"{len(joined)} bytes end before part {number} of {count}")
        (length,) = _LENGTH.unpack_from(joined, at)
        at = begins + length
        if at > len(joined):
            raise BadMessage(f"part {number} of {count} claims {length} bytes that are not there")
        parts.append(bytes(memoryview(joined)[begins:at]))
    if at != len(joined):
        raise BadMessage(f"{len(joined) - at} bytes follow after {count} parts")
    return parts
