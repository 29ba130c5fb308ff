"""A hospital's seat in secure sums: answers the coordinator stage by stage, whatever breaks off.

What a session needs to go on is on disk before anything is answered: its seed and the questions
accepted so far, in one file a round, readable by its owner only. A repeated question gets the same
bytes. A new attempt at a round replaces the old one, until shares have been shown in it: of each
round at most one sum is ever opened. Who may take part is the hospital's own list of members.
Knows nothing of records, models or noise: the words to hide come from a function.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from wardround.privacy.disk import Disk
from wardround.privacy.errors import BadMessage, PolicyRefused
from wardround.privacy.plan import RoundPlan
from wardround.privacy.secagg.lattice import Words
from wardround.privacy.secagg.letters import pack, unpack, write_letter
from wardround.privacy.secagg.party import AGREE, MASKED, Party
from wardround.privacy.secagg.requests import REQUEST, STAGES, read_request
from wardround.privacy.secagg.shares import KEYS, SHARES
from wardround.privacy.secagg.terms import SecureSum, Terms
from wardround.privacy.signing import SigningKey, sha256

_REVEALED = "revealed"
_CLOSED = "closed"
_ONLY_CLOSED = pack({_CLOSED: b""})

# Sealed plan, arrays and terms in; what may be told beside the words, and the words, out.
MakeWords = Callable[[bytes, bytes, Terms], tuple[Mapping[str, Any], Words]]


class Seat:
    """One hospital's seat."""

    def __init__(
        self, name: str, folder: Path, key: SigningKey, members: Mapping[str, str], make: MakeWords
    ) -> None:
        """Take a seat.

        Args:
            name: This hospital.
            folder: Where sessions are kept; made when first needed.
            key: Its signing key.
            members: Public key of every hospital it is willing to sum with, by name.
            make: Makes the words of a round, once, and gives the same ones ever after.
        """
        self._name = name
        self._folder = folder
        self._key = key
        self._members = members
        self._make = make
        self._disk = Disk()

    def answer(self, sealed: bytes, coordinator: str, arrays_block: bytes) -> bytes:
        """The letter that answers one signed request, on disk as far as it must be remembered.

        Raises:
            WardroundError: The request is not the coordinator's, comes out of turn, or somebody in
                it cheats; nothing was revealed.
        """
        stage, terms, parts = read_request(sealed, coordinator)
        self._require_members(terms)
        # One file a round, so that attempts at a round replace one another.
        path = self._folder / sha256(terms.run.encode())[:32] / str(terms.round)
        kept = self._load(path, terms, stage)
        party = Party(terms, self._name, self._key, kept["seed"])
        _replay(party, kept, stage)
        reply, remembered = self._step(party, stage, parts, arrays_block)
        self._store(path, kept | remembered)
        return reply

    def _step(
        self, party: Party, stage: str, parts: Mapping[str, bytes], arrays_block: bytes
    ) -> tuple[bytes, dict[str, bytes]]:
        """The answer of one stage, and what of the question must be remembered."""
        if stage == KEYS:
            return party.advertise(), {}
        if stage == SHARES:
            return party.share(parts), {"keys": pack(parts)}
        if stage == MASKED:
            if parts.keys() != {"plan", "letters"}:
                raise BadMessage(f"{REQUEST}: plan or letters are missing")
            letters = unpack(parts["letters"], REQUEST)
            party.accept(letters)
            told, words = self._make(parts["plan"], arrays_block, party.terms)
            masked = party.mask(letters, words).tobytes()
            reply = write_letter(party.terms, MASKED, self._name, told, self._key, masked)
            return reply, {"letters": parts["letters"]}
        if stage == AGREE:
            return party.agree(sorted(parts)), {"survivors": pack(parts)}
        return party.reveal(parts), {_REVEALED: b""}

    def _require_members(self, terms: Terms) -> None:
        """Refuse a sum with hospitals that this one was not told of, or under other keys."""
        for name, public in terms.members.items():
            if self._members.get(name) != public:
                raise PolicyRefused(
                    f"hospital {name!r} with key {public[:12]}… is not on this hospital's list of "
                    "members; no sum is made with it"
                )

    def _load(self, path: Path, terms: Terms, stage: str) -> dict[str, bytes]:
        """What is remembered of the session, or a fresh one."""
        session = terms.session.encode()
        kept = unpack(path.read_bytes(), str(path)) if path.exists() else {}
        if _CLOSED in kept or (_REVEALED in kept and kept["session"] != session):
            raise PolicyRefused(
                f"round {terms.round} of run {terms.run} is over; of each round one sum is opened"
            )
        if kept.get("session") == session:
            return kept
        if stage != KEYS:
            raise BadMessage(f"stage {stage!r} of a session this hospital has not begun")
        self._close_before(path)
        return {"session": session, "seed": secrets.token_bytes(32)}

    def _close_before(self, path: Path) -> None:
        """Forget the seeds of earlier rounds but the last, so that their rows stay masked."""
        rounds = [old for old in path.parent.glob("*") if old.name.isdigit()]
        for old in rounds:
            if int(old.name) < int(path.name) - 1 and old.read_bytes() != _ONLY_CLOSED:
                self._disk.write_file(old, _ONLY_CLOSED)

    def _store(self, path: Path, kept: Mapping[str, bytes]) -> None:
        """Write down what the session needs to go on, before its answer leaves."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        content = pack(kept)
        if not path.exists() or path.read_bytes() != content:
            self._disk.write_file(path, content)


def _replay(party: Party, kept: Mapping[str, bytes], stage: str) -> None:
    """Ask a party again what it was asked before, up to the stage it is asked about now."""
    reached = STAGES.index(stage)
    if "keys" in kept and reached >= STAGES.index(SHARES):
        party.share(unpack(kept["keys"], "kept keys"))
    if "letters" in kept and reached >= STAGES.index(MASKED):
        party.accept(unpack(kept["letters"], "kept letters"))
    if "survivors" in kept and reached >= STAGES.index(AGREE):
        party.agree(sorted(unpack(kept["survivors"], "kept survivors")))


def require_terms(plan: RoundPlan, terms: Terms) -> None:
    """Refuse to put a plan's update into another sum than the plan speaks of."""
    secure = plan.secure
    if secure is None:
        raise PolicyRefused("the plan has no secure sum; its update goes out by itself")
    agreed = SecureSum(len(terms.members), terms.threshold, terms.bits, secure.largest)
    place = (terms.run, terms.round, terms.plans.get(plan.hospital))
    if agreed != secure or place != (plan.run, plan.round, plan.sha256):
        raise BadMessage("the secure sum is not the one the plan speaks of")
