"""Letters: the signed messages of the protocol, and who is to blame when one is not in order.

A letter is one line of JSON, then raw bytes where it carries any, all under the sender's Ed25519
signature. It names its session, so that a letter of another round, run or attempt is told apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wardround.privacy.envelope import open_bytes, parse_document, seal_bytes
from wardround.privacy.errors import BadMessage, UntrustedPeer
from wardround.privacy.secagg.terms import Terms
from wardround.privacy.signing import SigningKey, canonical


class Misconduct(UntrustedPeer):
    """A hospital broke the protocol, or somebody did in its name.

    Attributes:
        hospital: Whose message it was.
        what: What is wrong with it.
    """

    def __init__(self, hospital: str, what: str) -> None:
        super().__init__(f"hospital {hospital!r} {what}")
        self.hospital = hospital
        self.what = what


def write_letter(
    terms: Terms,
    stage: str,
    sender: str,
    body: Mapping[str, Any],
    key: SigningKey,
    attached: bytes = b"",
) -> bytes:
    """A signed letter of this session."""
    document = {"session": terms.session, "hospital": sender, **body}
    return seal_bytes(canonical(document) + b"\n" + attached, key, _context(stage))


def read_letter(
    letter: bytes, terms: Terms, stage: str, sender: str
) -> tuple[dict[str, Any], bytes]:
    """Body and attached bytes of a letter, once signature and session have been checked.

    Raises:
        Misconduct: Not signed by the sender's enrolled key, or of another session.
        BadMessage: The sender was not invited, or the letter cannot be read.
    """
    if sender not in terms.members:
        raise BadMessage(f"hospital {sender!r} takes no part in this session")
    try:
        payload = open_bytes(letter, terms.members[sender], _context(stage))
    except UntrustedPeer as error:
        what = f"did not sign its message ({stage}) with its enrolled key: forged or damaged"
        raise Misconduct(sender, what) from error
    line, _, attached = payload.partition(b"\n")
    body = parse_document(line, _context(stage))
    if body.pop("session", None) != terms.session:
        raise Misconduct(sender, f"sent a message ({stage}) of another session: replayed")
    if body.pop("hospital", None) != sender:
        raise Misconduct(sender, f"signed a message ({stage}) in another hospital's name")
    return body, attached


def pack(parts: Mapping[str, bytes]) -> bytes:
    """Several named byte strings as one."""
    ordered = sorted(parts)
    index = canonical({"parts": [[name, len(parts[name])] for name in ordered]})
    return index + b"\n" + b"".join(parts[name] for name in ordered)


def unpack(data: bytes, what: str) -> dict[str, bytes]:
    """What ``pack`` packed; ``BadMessage`` when that cannot be."""
    line, _, rest = data.partition(b"\n")
    parts, start = {}, 0
    try:
        for name, length in parse_document(line, what)["parts"]:
            if length < 0:
                raise ValueError(length)
            parts[str(name)] = rest[start : start + length]
            start += length
    except (KeyError, TypeError, ValueError) as error:
        raise BadMessage(f"{what}: its index cannot be read") from error
    if start != len(rest):
        raise BadMessage(f"{what}: {len(rest)} bytes; its index speaks of {start}")
    return parts


def field_of(body: Mapping[str, Any], name: str, sender: str, stage: str) -> bytes:
    """A field of hexadecimal digits as bytes; ``Misconduct`` when it is not one."""
    try:
        return bytes.fromhex(body[name])
    except (KeyError, TypeError, ValueError) as error:
        raise Misconduct(sender, f"sent a message ({stage}) without a readable {name}") from error


def _context(stage: str) -> str:
    return f"secagg {stage}"
