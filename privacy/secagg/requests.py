"""Requests: what a coordinator asks a hospital in one stage of a secure sum, signed.

A request names its stage and the whole terms, so a hospital needs nothing else to judge it. Its
parts are what the stage is about: other hospitals' letters, a sealed plan, or names of survivors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from wardround.privacy.envelope import open_bytes, parse_document, seal_bytes
from wardround.privacy.errors import BadInput, BadMessage
from wardround.privacy.secagg.letters import pack, unpack
from wardround.privacy.secagg.party import AGREE, MASKED, REVEAL
from wardround.privacy.secagg.shares import KEYS, SHARES
from wardround.privacy.secagg.terms import Terms
from wardround.privacy.signing import SigningKey, canonical
from wardround.privacy.tables import from_table

REQUEST = "secagg request"
STAGES = (KEYS, SHARES, MASKED, AGREE, REVEAL)


def write_request(terms: Terms, stage: str, parts: Mapping[str, bytes], key: SigningKey) -> bytes:
    """A request, signed by the coordinator."""
    document = canonical({"stage": stage, "terms": asdict(terms)})
    return seal_bytes(document + b"\n" + pack(parts), key, REQUEST)


def read_request(sealed: bytes, coordinator: str) -> tuple[str, Terms, dict[str, bytes]]:
    """Stage, terms and parts of a request that ``coordinator`` signed.

    Raises:
        UntrustedPeer: Somebody else did.
        BadMessage: It cannot be read, or its terms cannot be.
    """
    line, _, attached = open_bytes(sealed, coordinator, REQUEST).partition(b"\n")
    document = parse_document(line, REQUEST)
    stage = document.get("stage")
    if stage not in STAGES:
        raise BadMessage(f"{REQUEST}: no stage is called {stage!r}")
    try:
        terms = from_table(Terms, document.get("terms"), f"{REQUEST} terms")
        _ = terms.session
    except BadInput as error:
        raise BadMessage(str(error)) from error
    except ValueError as error:
        raise BadMessage(f"{REQUEST}: its terms hold a value that cannot be written") from error
    return stage, terms, unpack(attached, REQUEST)
