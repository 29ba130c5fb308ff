"""How blocks of bytes ride in Flower messages; the one place both ends agree on record names.

Blocks travel as arrays, because Flower cuts arrays in pieces on the wire and passes configuration
on whole. Nothing is read of what is carried.
"""

from __future__ import annotations

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from wardround.privacy.errors import BadMessage

DECLARE = "query.declare"
TRAIN = "train"
SUM = "query.sum"


def request_content(sealed_plan: bytes, arrays_block: bytes) -> RecordDict:
    """What a coordinator sends a hospital in a round."""
    return RecordDict(
        {"plan": ConfigRecord({"sealed": sealed_plan}), "arrays": _write_block(arrays_block)}
    )


def read_request(content: RecordDict) -> tuple[bytes, bytes]:
    """Sealed plan and arrays block of a request, or ``BadMessage``."""
    record = content.get("plan")
    plan = record.get("sealed") if isinstance(record, ConfigRecord) else None
    if not isinstance(plan, bytes):
        raise BadMessage("the request holds no plan")
    return plan, _read_block(content, "arrays")


def reply_content(sealed_reply: bytes) -> RecordDict:
    """What a hospital sends back."""
    return RecordDict({"reply": _write_block(sealed_reply)})


def read_reply(content: RecordDict) -> bytes:
    """The sealed reply, or ``BadMessage``."""
    return _read_block(content, "reply")


def _write_block(block: bytes) -> ArrayRecord:
    return ArrayRecord(
        {"block": Array(dtype="uint8", shape=(len(block),), stype="wardround.block", data=block)}
    )


def _read_block(content: RecordDict, name: str) -> bytes:
    # Not through ``array_records``: that view and its owner would hold each other, and every block
    # would stay in memory until the garbage collector comes by.
    record = content.get(name)
    if not isinstance(record, ArrayRecord) or "block" not in record:
        raise BadMessage(f"the message holds no {name}")
    return bytes(record["block"].data)
