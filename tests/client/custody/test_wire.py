"""Parts survive any way of cutting them; whatever is not parts is turned away."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardround.client.custody.wire import CHUNK_BYTES, read_parts, to_chunks
from wardround.privacy.errors import BadMessage


@given(st.lists(st.binary(max_size=50), max_size=4), st.integers(1, 20))
def test_parts_come_back_however_they_were_cut(parts: list[bytes], size: int) -> None:
    joined = b"".join(to_chunks(*parts))
    cut = [joined[i : i + size] for i in range(0, len(joined), size)]
    assert read_parts(cut, len(parts)) == parts


@given(st.lists(st.binary(max_size=60), max_size=4), st.integers(0, 3))
def test_any_bytes_are_parts_or_turned_away(chunks: list[bytes], count: int) -> None:
    try:
        parts = read_parts(chunks, count)
    except BadMessage:
        return
    assert b"".join(to_chunks(*parts)) == b"".join(chunks)


def test_chunks_are_small() -> None:
    chunks = list(to_chunks(b"x" * (3 * CHUNK_BYTES + 1)))
    assert max(map(len, chunks)) == CHUNK_BYTES
    assert len(chunks) == 5


@pytest.mark.parametrize(
    ("block", "says"),
    [
        (b"", "end before part 1 of 1"),
        (b"\0" * 7, "end before part 1 of 1"),
        (b"\0" * 7 + b"\x02a", "claims 2 bytes"),
        (b"\xff" * 8, "claims 18446744073709551615 bytes"),
        (b"\0" * 7 + b"\x01ab", "1 bytes follow after 1 parts"),
    ],
)
def test_says_what_is_wrong(block: bytes, says: str) -> None:
    with pytest.raises(BadMessage, match=says):
        read_parts([block], 1)


def test_too_much_is_not_read_to_the_end() -> None:
    read = []

    def endless() -> Iterator[bytes]:
        while True:
            read.append(1)
            yield b"x" * 10

    with pytest.raises(BadMessage, match="more than 35 bytes"):
        read_parts(endless(), 1, 35)
    assert len(read) == 4
