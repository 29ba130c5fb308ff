"""What a hospital says to the outside, on its letterhead: signed bytes that name it and its key.

A declaration, a refusal or an update. Knows nothing of how any of them came about.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from wardround.client.refusals import RefusalBook
from wardround.privacy.envelope import seal_bytes
from wardround.privacy.errors import WardroundError
from wardround.privacy.noise import Arrays, Noised
from wardround.privacy.plan import RoundPlan
from wardround.privacy.signing import SigningKey
from wardround.privacy.stream import SecureStream
from wardround.strategies.codec import encode
from wardround.strategies.encoding import Encoding, find_encoding

log = logging.getLogger("wardround.custodian")

REPLY = "reply"
_REASON_CHARACTERS = 4000


class Letterhead:
    """Signs what one hospital says."""

    def __init__(self, hospital: str, key: SigningKey, refusals: RefusalBook) -> None:
        self._hospital = hospital
        self._key = key
        self._refusals = refusals

    def declaration(self, facts: Mapping[str, Any]) -> bytes:
        """Who this hospital is and what it declares; all of ``facts`` is public."""
        return self._sign({"kind": "declaration", **facts}, {})

    def refusal(self, round_number: int, refusal: WardroundError) -> bytes:
        """What was refused, and why."""
        reason = _printable(str(refusal))
        log.warning(
            "refused round=%(round)d reason=%(reason)s",
            {"round": round_number, "reason": reason},
        )
        try:
            self._refusals.note(round_number, type(refusal).__name__, reason)
        except OSError as error:  # the answer goes out all the same; nothing depends on the book
            log.error("refusal not kept error=%(error)s", {"error": error.strerror})
        return self._sign(
            {
                "kind": "refusal",
                "round": round_number,
                "error": type(refusal).__name__,
                "reason": reason,
            },
            {},
        )

    def update(
        self, plan: RoundPlan, change: Noised, report: Mapping[str, Any], stream: SecureStream
    ) -> bytes:
        """Law 1: the only place that puts arrays into a reply, and it takes ``Noised`` alone.

        Privacy: rounding to the plan's encoding looks at nothing but the noised values.
        """
        if not isinstance(change, Noised):
            raise TypeError(f"only Noised values leave; this is {type(change).__name__}")
        place = {"run": plan.run, "round": plan.round, "plan_sha256": plan.sha256}
        header = {"kind": "update", **place, "report": report}
        return self._sign(header, change.value, find_encoding(plan.encoding), stream)

    def _sign(
        self,
        header: Mapping[str, Any],
        arrays: Arrays,
        encoding: Encoding = Encoding.FP32,
        stream: SecureStream | None = None,
    ) -> bytes:
        named = {"hospital": self._hospital, "key": self._key.public, **header}
        return seal_bytes(encode(named, arrays, encoding, stream), self._key, REPLY)


def _printable(reason: str) -> str:
    """A reason for one line of a log, whatever the plan it quotes put into it."""
    cut = reason if len(reason) <= _REASON_CHARACTERS else f"{reason[:_REASON_CHARACTERS]}…"
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in cut)
