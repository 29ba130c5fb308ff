"""The coordinator's side of a secure sum: collects letters, adds masked rows up, takes masks off.

It keeps one running row, whatever the number of hospitals. Every letter is checked as it comes;
what is wrong with one raises ``Misconduct``, which names the hospital, and changes nothing. Whoever
has not answered when a stage is closed has dropped out. Below the threshold a stage cannot be
closed, and then nothing can be opened either: the shares that would are still with the hospitals.
"""

from __future__ import annotations

import numpy as np

from wardround.privacy.secagg import shamir
from wardround.privacy.secagg.lattice import Words, read_words, word_type
from wardround.privacy.secagg.letters import Misconduct, pack, read_letter, unpack
from wardround.privacy.secagg.masks import add_mask, remove_mask
from wardround.privacy.secagg.party import REVEAL, read_agreement
from wardround.privacy.secagg.shares import (
    BLINDING,
    PAIRING,
    PublicKeys,
    blinding_mask_key,
    pairing_key,
    read_keys,
    read_share_hashes,
    require_blinding,
    require_pairing,
    share_hash,
)
from wardround.privacy.secagg.terms import Terms


class Tally:
    """One session as the coordinator sees it.

    Attributes:
        terms: What the session is about.
        keys: Letters with advertised keys, by hospital.
        agreements: Letters with signed lists of survivors, by hospital.
    """

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.keys: dict[str, bytes] = {}
        self.agreements: dict[str, bytes] = {}
        self._peers: dict[str, PublicKeys] = {}
        self._dealt: dict[str, dict[str, bytes]] = {}
        self._hashes: dict[tuple[str, str], dict[str, str]] = {}
        self._masked: list[str] = []
        self._sum: Words = np.zeros(terms.size, word_type(terms.bits))
        self._shown: dict[str, dict[int, int]] = {}
        self._revealed: set[str] = set()

    @property
    def dealers(self) -> tuple[str, ...]:
        """Who dealt shares, in order."""
        return tuple(sorted(self._dealt))

    @property
    def survivors(self) -> tuple[str, ...]:
        """Whose masked rows are in the sum, in order."""
        return tuple(sorted(self._masked))

    def take_keys(self, sender: str, letter: bytes) -> None:
        """A hospital's advertised keys."""
        self._peers[sender] = read_keys(letter, self.terms, sender)
        self.keys[sender] = letter

    def take_shares(self, sender: str, packed: bytes) -> None:
        """A hospital's letters with shares, one for each hospital that advertised keys."""
        if sender not in self.keys:
            raise Misconduct(sender, "deals shares without having advertised keys")
        letters = unpack(packed, f"shares of {sender}")
        if letters.keys() != self.keys.keys():
            raise Misconduct(sender, "did not deal shares to exactly the hospitals with keys")
        hashes = {
            (sender, holder): read_share_hashes(letter, self.terms, sender, holder)[0]
            for holder, letter in letters.items()
        }
        self._dealt[sender] = letters
        self._hashes |= hashes

    def letters_for(self, holder: str) -> dict[str, bytes]:
        """What every dealer had for one hospital; once the stage of dealing is closed."""
        self.terms.require_enough(len(self._dealt), "hospitals dealt shares")
        return {dealer: letters[holder] for dealer, letters in self._dealt.items()}

    def take_masked(self, sender: str, masked: Words) -> None:
        """A hospital's masked row; added to the running sum, not kept."""
        if sender not in self._dealt:
            raise Misconduct(sender, "sends a masked row without having dealt shares")
        if sender in self._masked:
            raise Misconduct(sender, "sends a second masked row")
        if masked.shape != self._sum.shape or masked.dtype != self._sum.dtype:
            raise Misconduct(sender, f"sends {len(masked)} words of {masked.dtype}")
        self._sum += masked
        self._masked.append(sender)

    def take_agreement(self, sender: str, letter: bytes) -> None:
        """A hospital's signed list of survivors."""
        if read_agreement(letter, self.terms, sender) != self.survivors:
            raise Misconduct(sender, "signed another list of survivors")
        self.agreements[sender] = letter

    def take_reveal(self, sender: str, letter: bytes) -> None:
        """A hospital's shares of what opens the sum, each against its dealer's commitment.

        Raises:
            Misconduct: A share is not the one that was dealt, or of the wrong secret: the sender
                lies, for it accepted that share when it was dealt.
        """
        if sender not in self.agreements or sender in self._revealed:
            raise Misconduct(sender, "reveals shares out of turn")
        body, _ = read_letter(letter, self.terms, REVEAL, sender)
        kinds, shares = body.get("kinds"), body.get("shares")
        if kinds != self._wanted() or not isinstance(shares, dict) or shares.keys() != kinds.keys():
            raise Misconduct(sender, "reveals other shares than the survivors call for")
        opened: dict[str, int] = {}
        for dealer, kind in kinds.items():
            share = _number(shares[dealer])
            hashed = share_hash(self.terms, dealer, sender, kind, share)
            if self._hashes[dealer, sender][kind] != hashed:
                raise Misconduct(sender, f"lies about its share of {dealer}'s secret")
            opened[dealer] = share
        for dealer, share in opened.items():
            self._shown.setdefault(dealer, {})[self.terms.points[sender]] = share
        self._revealed.add(sender)

    def total(self) -> Words:
        """The sum of the survivors' rows, every mask taken off.

        Raises:
            BadMessage: Too few hospitals revealed their shares.
            Misconduct: A hospital dealt shares that do not add up to what it advertised.
        """
        terms, survivors = self.terms, self.survivors
        terms.require_enough(len(survivors), "hospitals survived")
        terms.require_enough(len(self._revealed), "hospitals revealed their shares")
        total = self._sum.copy()
        for name in survivors:
            seed = require_blinding(terms, name, self._join(name), self._peers[name])
            remove_mask(total, blinding_mask_key(terms, seed))
        for gone in sorted(set(self._dealt) - set(survivors)):
            private = require_pairing(terms, gone, self._join(gone), self._peers[gone])
            for name in survivors:
                key = pairing_key(terms, private, self._peers[name].pairing, gone, name)
                combine = remove_mask if name < gone else add_mask
                combine(total, key)
        return total

    def to_bytes(self) -> bytes:
        """What is needed to go on from before the list of survivors was shown."""
        dealt = {dealer: pack(letters) for dealer, letters in self._dealt.items()}
        return pack(
            {
                "keys": pack(self.keys),
                "dealt": pack(dealt),
                "masked": pack(dict.fromkeys(self._masked, b"")),
                "sum": self._sum.tobytes(),
            }
        )

    @classmethod
    def from_bytes(cls, terms: Terms, data: bytes) -> Tally:
        """The tally that ``to_bytes`` wrote; every letter is checked again."""
        tally, parts = cls(terms), unpack(data, "kept tally")
        for name, letter in unpack(parts["keys"], "kept keys").items():
            tally.take_keys(name, letter)
        for name, packed in unpack(parts["dealt"], "kept shares").items():
            tally.take_shares(name, packed)
        tally._masked = list(unpack(parts["masked"], "kept survivors"))
        tally._sum = read_words(parts["sum"], terms.size, terms.bits).copy()
        return tally

    def _wanted(self) -> dict[str, str]:
        """Which of its two secrets is needed of each dealer; never both."""
        survivors = set(self._masked)
        return {name: BLINDING if name in survivors else PAIRING for name in self._dealt}

    def _join(self, dealer: str) -> bytes | None:
        shares = self._shown[dealer]
        points = sorted(shares)[: self.terms.threshold]
        return shamir.join({point: shares[point] for point in points})


def _number(text: object) -> int:
    """A share as it was written; a number that no share is, when it cannot be read."""
    try:
        return int(str(text), 16)
    except ValueError:
        return -1
