"""Damage: valid documents changed in the ways that break parsers, and bytes that never were valid.

Knows how a document is written (bytes, JSON, JSON lines, TOML, CSV or a block of arrays), nothing
of what it means. Every text that is put into a document contains ``CANARY``, so that a message
that repeats what a document says is noticed.
"""

from __future__ import annotations

import copy
import json
import math
import struct
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any

import tomli_w
from hypothesis import strategies as st

CANARY = "Zqx7-Jane-Doe"
# Texts that JSON and TOML writers would refuse or be slow at stand for themselves until the end.
_LATE = {
    "@deep@": "[" * 100_000,
    "@nested@": "[" * 400 + "]" * 400,
    "@digits@": "9" * 5000,
    "@escape@": '"\\ud800' + CANARY + '"',
    "@nul@": '"\\u0000' + CANARY + '"',
}
_ODD: tuple[Any, ...] = (
    True, False, 0, 1, -1, 2, 2**31, 2**63, 2**70, -(2**70), 10**400, 0.5, -0.0, 5e-324, 1e308,
    math.nan, math.inf, -math.inf, "", " ", CANARY, CANARY + "\n", "\x00", "é" * 40, "../../etc",
    CANARY * 2000, "1e999", "-1", [], {}, [[]], {CANARY: CANARY}, [CANARY], [0] * 50, *_LATE,
)  # fmt: skip
_CELLS = (
    "", " ", "-1", "0", "2", "nan", "inf", "1e400", "9" * 5000, CANARY, f'"{CANARY}', "\x00",
    f'{CANARY}"{CANARY}', "x" * 140_000, "٣", "1_0", "\ufeff", "0x10",
)  # fmt: skip
_PIECES = (b"", b"\x00", b"\xff\xfe", b"\n", b"[", b"{", b'"', b"\xed\xa0\x80", b"1e999", b",",
           CANARY.encode(), b"\xef\xbb\xbf", b"[" * 3000)  # fmt: skip


class Kind(Enum):
    """How a document is written."""

    BYTES = "bytes"
    JSON = "json"
    LINES = "lines"
    TOML = "toml"
    CSV = "csv"
    BLOCK = "block"


def damaged(documents: Sequence[bytes], kind: Kind) -> st.SearchStrategy[bytes]:
    """Something that may no longer be one of ``documents``: nine times in ten a mutation of one."""
    return st.one_of(
        *[_mutation(documents, kind)] * 6,
        *[_cut_and_flip(documents)] * 3,
        st.binary(max_size=300),
        _foreign(kind),
    )


@st.composite
def _mutation(draw: Any, documents: Sequence[bytes], kind: Kind) -> bytes:
    """A document with one to three changes inside it."""
    document = draw(st.sampled_from(documents))
    for _ in range(draw(st.integers(1, 3))):
        document = _CHANGES[kind](draw, document)
    return document


@st.composite
def _cut_and_flip(draw: Any, documents: Sequence[bytes]) -> bytes:
    """A document with some of its bytes flipped, cut out, repeated or replaced."""
    document = draw(st.sampled_from(documents))
    for _ in range(draw(st.integers(1, 3))):
        document = _change_bytes(draw, document)
    return document


def _foreign(kind: Kind) -> st.SearchStrategy[bytes]:
    """A document of the right kind about nothing that the parser knows."""
    texts = st.sampled_from([CANARY, "", "schema", "kind", "id"])
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | texts
    values = st.recursive(leaves, lambda v: st.lists(v) | st.dictionaries(texts, v), max_leaves=12)
    if kind is Kind.TOML:
        return st.dictionaries(texts, values).map(_toml)
    return values.map(lambda value: json.dumps(value).encode())


def _change_bytes(draw: Any, document: bytes) -> bytes:
    """One change that needs no understanding."""
    start = draw(st.integers(0, len(document)))
    stop = min(len(document), start + draw(st.sampled_from([0, 1, 1, 2, 8, 64, 1000])))
    middle = document[start:stop]
    match draw(st.sampled_from(["flip", "cut", "end", "repeat", "put"])):
        case "flip":
            bit = 1 << draw(st.integers(0, 7))
            middle = bytes([middle[0] ^ bit]) + middle[1:] if middle else b""
        case "cut":
            middle = b""
        case "end":
            return document[:start]
        case "repeat":
            middle *= 2
        case "put":
            middle = draw(st.sampled_from(_PIECES))
    return document[:start] + middle + document[stop:]


def _change_json(draw: Any, document: bytes) -> bytes:
    """One change to a value somewhere in a JSON document."""
    try:
        value = json.loads(document)
    except (ValueError, RecursionError):
        return _change_bytes(draw, document)
    return _late(json.dumps(_changed(draw, value), ensure_ascii=draw(st.booleans())))


def _change_lines(draw: Any, document: bytes) -> bytes:
    """One change to one line of JSON, or to their order."""
    lines = document.split(b"\n")
    place = draw(st.integers(0, len(lines) - 1))
    match draw(st.sampled_from(["inside", "inside", "inside", "repeat", "cut", "swap"])):
        case "inside":
            lines[place] = _change_json(draw, lines[place])
        case "repeat":
            lines.insert(place, lines[place])
        case "cut":
            del lines[place]
        case "swap":
            lines[place], lines[0] = lines[0], lines[place]
    return b"\n".join(lines)


def _change_toml(draw: Any, document: bytes) -> bytes:
    """One change to a value somewhere in a TOML document."""
    import tomllib

    try:
        tables = tomllib.loads(document.decode())
    except (ValueError, RecursionError):
        return _change_bytes(draw, document)
    changed = _changed(draw, tables)
    return _toml(changed) if isinstance(changed, dict) else document


def _toml(tables: dict[str, Any]) -> bytes:
    """TOML has no null; what cannot be written is left out by whoever reads ``tables`` as text."""
    return _late(tomli_w.dumps(_without_null(tables)))


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_null(one) for name, one in value.items() if one is not None}
    if isinstance(value, list):
        return [_without_null(one) for one in value if one is not None]
    return value


def _change_csv(draw: Any, document: bytes) -> bytes:
    """One cell that says something else, or a line in another place."""
    lines = document.split(b"\n")
    place = draw(st.integers(0, len(lines) - 1))
    cells = lines[place].split(b",")
    at = draw(st.integers(0, len(cells) - 1))
    match draw(st.sampled_from(["cell", "cell", "cell", "cut", "repeat", "swap"])):
        case "cell":
            cells[at] = draw(st.sampled_from(_CELLS)).encode("utf-8", "surrogatepass")
        case "cut":
            del cells[at]
        case "repeat":
            cells.insert(at, cells[at])
        case "swap":
            lines[place], lines[0] = lines[0], lines[place]
            return b"\n".join(lines)
    lines[place] = b",".join(cells)
    return b"\n".join(lines)


def _change_block(draw: Any, block: bytes) -> bytes:
    """One change to the header of a block of arrays, or to the document inside its metadata."""
    try:
        (length,) = struct.unpack("<Q", block[:8])
        header = json.loads(block[8 : 8 + length])
        (name, inner), *_ = header["__metadata__"].items()
        if draw(st.booleans()):
            inner = _late(json.dumps(_changed(draw, json.loads(inner)))).decode()
            header["__metadata__"][name] = inner
        else:
            header = _changed(draw, header)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return _change_bytes(draw, block)
    written = _late(json.dumps(header))
    claimed = draw(st.sampled_from([len(written)] * 6 + [0, 2**31, 2**63]))
    return struct.pack("<Q", claimed) + written + block[8 + length :]


def _late(text: str) -> bytes:
    """The finished text, with what no writer would write in its places."""
    for stand_in, written in _LATE.items():
        text = text.replace(f'"{stand_in}"', written)
    return text.encode("utf-8", "surrogatepass")


def _changed(draw: Any, value: Any) -> Any:
    """A copy of ``value`` with one change somewhere inside it."""
    value = copy.deepcopy(value)
    holders = list(_holders(value))
    if not holders:
        return draw(st.sampled_from(_ODD))
    holder = draw(st.sampled_from(holders))
    keys: list[Any] = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    key = draw(st.sampled_from(keys))
    match draw(st.sampled_from(["odd", "odd", "odd", "odd", "drop", "null", "name", "swap"])):
        case "odd":
            holder[key] = draw(st.sampled_from(_ODD))
        case "drop":
            del holder[key]
        case "null":
            holder[key] = None
        case "name" if isinstance(holder, dict):
            name = draw(st.sampled_from([CANARY, "", str(key)[:-1], str(key) + "\x00"]))
            holder[name] = holder.pop(key)
        case "name":
            holder.extend([copy.deepcopy(holder[key])] * draw(st.sampled_from([1, 3, 300])))
        case "swap":
            other = draw(st.sampled_from(keys))
            holder[key], holder[other] = holder[other], holder[key]
    return value


def _holders(value: Any) -> Iterator[Any]:
    """Every object and list inside ``value`` that is not empty."""
    if isinstance(value, dict | list) and value:
        yield value
        for one in value.values() if isinstance(value, dict) else value:
            yield from _holders(one)


_CHANGES = {
    Kind.BYTES: _change_bytes,
    Kind.JSON: _change_json,
    Kind.LINES: _change_lines,
    Kind.TOML: _change_toml,
    Kind.CSV: _change_csv,
    Kind.BLOCK: _change_block,
}
