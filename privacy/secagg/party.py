"""A hospital's side of a secure sum: five answers, each given once and to one question only.

``advertise`` keys, ``share`` secrets among the hospitals, ``mask`` the update, ``agree`` on who
survived, ``reveal`` what opens the sum of the survivors. For each hospital exactly one of two
secrets is ever shown: the seed of its own mask if it survived, its pairing key if it dropped out.
With both, its single update would lie open; so a party signs one list of survivors, shows shares
only when ``threshold`` hospitals have signed the same list, and never thinks again.

Everything follows from the seed and the questions accepted so far, so a party can be made again
after a restart by asking it the same things, and says the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wardround.privacy.errors import BadMessage
from wardround.privacy.secagg import shamir
from wardround.privacy.secagg.keys import derive, public_key, session_secrets
from wardround.privacy.secagg.lattice import Words, word_type
from wardround.privacy.secagg.letters import Misconduct, pack, read_letter, write_letter
from wardround.privacy.secagg.masks import add_mask, remove_mask
from wardround.privacy.secagg.shares import (
    BLINDING,
    KEYS,
    KINDS,
    PAIRING,
    SHARES,
    PublicKeys,
    blinding_mask_key,
    envelope_key,
    pairing_key,
    read_keys,
    read_share,
    seed_hash,
    write_share,
)
from wardround.privacy.secagg.terms import Terms
from wardround.privacy.signing import SigningKey
from wardround.privacy.stream import SecureStream

MASKED = "masked"
AGREE = "survivors"
REVEAL = "reveal"


class Party:
    """One hospital in one session."""

    def __init__(self, terms: Terms, name: str, key: SigningKey, seed: bytes) -> None:
        """Take part in a session.

        Args:
            terms: What the session is about; the caller has checked roster and plan.
            name: This hospital.
            key: Its signing key, the one ``terms`` names.
            seed: 32 random bytes of the operating system, for this session alone; they never
                leave.

        Raises:
            BadMessage: The terms do not name this hospital with this key.
        """
        if terms.members.get(name) != key.public:
            raise BadMessage(f"the terms do not name hospital {name!r} with its own key")
        self.terms = terms
        self._name = name
        self._key = key
        self._secrets = session_secrets(seed, terms.session)
        self._keys: dict[str, bytes] = {}
        self._peers: dict[str, PublicKeys] = {}
        self._held: dict[str, dict[str, int]] = {}
        self._survivors: tuple[str, ...] = ()

    def advertise(self) -> bytes:
        """The letter with this hospital's keys for the session."""
        secrets = self._secrets
        body = {
            "envelope": public_key(secrets.envelope).hex(),
            "pairing": public_key(secrets.pairing).hex(),
            "blinding_sha256": seed_hash(self.terms, self._name, secrets.blinding),
        }
        return self._letter(KEYS, body)

    def share(self, keys: Mapping[str, bytes]) -> bytes:
        """Letters with shares of both secrets, one for each hospital that advertised keys.

        Args:
            keys: Every taking-part hospital's letter from ``advertise``, this one's included.

        Raises:
            Misconduct: A key is forged or replayed; the message names whose.
            BadMessage: Too few hospitals, or other keys than were shown before.
        """
        if self._keys and self._keys != keys:
            raise BadMessage("the coordinator shows other keys than before")
        self.terms.require_enough(len(keys), "hospitals advertised keys")
        peers = {name: read_keys(letter, self.terms, name) for name, letter in keys.items()}
        if keys.get(self._name) != self.advertise():
            raise Misconduct(self._name, "is shown with keys that are not its own")
        self._keys, self._peers = dict(keys), peers
        dealt = {kind: self._polynomial(kind) for kind in KINDS}
        return pack({name: self._share_letter(name, dealt) for name in peers})

    def mask(self, letters: Mapping[str, bytes], words: Words) -> Words:
        """The words with every mask on: uniform to whoever lacks the seeds.

        Args:
            letters: What each hospital's ``share`` had for this one; who is missing has dropped
                out and gets no mask.
            words: What to hide, shape ``(size,)``, modulo ``2**bits``.

        Raises:
            Misconduct: Shares are forged, replayed or not what their dealer committed itself to.
            BadMessage: Too few hospitals, or other ones than before.
        """
        self.accept(letters)
        if words.shape != (self.terms.size,) or words.dtype != word_type(self.terms.bits):
            raise ValueError(f"{words.shape} words of {words.dtype} do not fit the terms")
        masked = words.copy()
        add_mask(masked, blinding_mask_key(self.terms, self._secrets.blinding))
        for name in self._held.keys() - {self._name}:
            combine = add_mask if self._name < name else remove_mask
            combine(masked, self._pairing_key(name))
        return masked

    def accept(self, letters: Mapping[str, bytes]) -> None:
        """Take this hospital's shares in and check them; ``mask`` begins with it."""
        if not self._peers:
            raise BadMessage("shares before keys")
        if self._held and self._held.keys() != letters.keys():
            raise BadMessage("the coordinator shows shares of other hospitals than before")
        if self._name not in letters or not letters.keys() <= self._peers.keys():
            raise BadMessage("shares are missing, or come from hospitals without keys")
        self.terms.require_enough(len(letters), "hospitals dealt shares")
        self._held = {
            name: read_share(
                letter, self.terms, name, self._name, self._envelope_key(name, self._name)
            )
            for name, letter in letters.items()
        }

    def agree(self, survivors: Sequence[str]) -> bytes:
        """The letter in which this hospital signs who survived; the only such letter, ever.

        Raises:
            BadMessage: Too few survived, this hospital is not among them, somebody is who dealt no
                shares, or another list was signed before.
        """
        listed = tuple(survivors)
        if self._survivors and self._survivors != listed:
            raise BadMessage("the coordinator shows other survivors than before; refused")
        if listed != tuple(sorted(set(listed))) or not set(listed) <= self._held.keys():
            raise BadMessage("survivors who dealt no shares, or not in order")
        if self._name not in listed:
            raise BadMessage("this hospital is not among the survivors")
        self.terms.require_enough(len(listed), "hospitals survived")
        self._survivors = listed
        return self._letter(AGREE, {"survivors": list(listed)})

    def reveal(self, agreements: Mapping[str, bytes]) -> bytes:
        """The letter that opens the sum: a seed share of each survivor, a key share of the others.

        Args:
            agreements: Letters from ``agree`` of ``threshold`` survivors or more.

        Raises:
            Misconduct: A hospital signed another list, or its letter is forged or replayed.
            BadMessage: Too few letters, or no list was signed here.
        """
        if not self._survivors:
            raise BadMessage("shares are shown only of survivors this hospital has signed for")
        self.terms.require_enough(len(agreements), "hospitals signed the list of survivors")
        for name, letter in agreements.items():
            if name not in self._survivors:
                raise BadMessage(f"hospital {name!r} signs a list it is not on")
            if read_agreement(letter, self.terms, name) != self._survivors:
                raise Misconduct(name, "signed another list of survivors")
        shown = {
            name: (BLINDING if name in self._survivors else PAIRING) for name in sorted(self._held)
        }
        shares = {name: f"{self._held[name][kind]:066x}" for name, kind in shown.items()}
        return self._letter(REVEAL, {"kinds": shown, "shares": shares})

    def _share_letter(self, holder: str, dealt: Mapping[str, Mapping[int, int]]) -> bytes:
        """The letter with one holder's shares."""
        shares = {kind: of_kind[self.terms.points[holder]] for kind, of_kind in dealt.items()}
        key = self._envelope_key(self._name, holder)
        return self._letter(SHARES, write_share(self.terms, self._name, holder, shares, key))

    def _polynomial(self, kind: str) -> dict[int, int]:
        """All shares of one secret; drawn from the session's own key, so always the same."""
        secret = self._secrets.blinding if kind == BLINDING else self._secrets.pairing
        key = derive(self._secrets.polynomial, self.terms.session, f"polynomial {kind}")
        points = (self.terms.points[name] for name in self._peers)
        return shamir.split(secret, self.terms.threshold, points, SecureStream(key))

    def _envelope_key(self, dealer: str, holder: str) -> bytes:
        other = holder if dealer == self._name else dealer
        public = self._peers[other].envelope
        return envelope_key(self.terms, self._secrets.envelope, public, dealer, holder)

    def _pairing_key(self, other: str) -> bytes:
        public = self._peers[other].pairing
        return pairing_key(self.terms, self._secrets.pairing, public, self._name, other)

    def _letter(self, stage: str, body: Mapping[str, object]) -> bytes:
        return write_letter(self.terms, stage, self._name, body, self._key)


def read_agreement(letter: bytes, terms: Terms, sender: str) -> tuple[str, ...]:
    """The list of survivors that a hospital signed."""
    body, _ = read_letter(letter, terms, AGREE, sender)
    listed = body.get("survivors")
    if not isinstance(listed, list):
        raise Misconduct(sender, "signed no list of survivors")
    return tuple(str(name) for name in listed)
