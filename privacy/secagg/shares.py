"""Shares on their way: sealed to their holder, and pinned down by their dealer's signed hashes.

The hash of every share stands in the dealer's signed letter. Whoever later shows another share than
the dealer committed to is caught, and by name; whoever deals shares that do not fit its hashes is
caught by the holder, before anything depends on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wardround.privacy.secagg import shamir
from wardround.privacy.secagg.keys import agree, derive, open_once, public_key, seal_once
from wardround.privacy.secagg.letters import Misconduct, field_of, read_letter
from wardround.privacy.secagg.terms import Terms
from wardround.privacy.signing import canonical, sha256

KEYS = "keys"
SHARES = "shares"
BLINDING = "blinding"
PAIRING = "pairing"
KINDS = (BLINDING, PAIRING)


@dataclass(frozen=True)
class PublicKeys:
    """What a hospital advertises.

    Attributes:
        envelope: X25519 key that shares for it are sealed to.
        pairing: X25519 key that pairwise masks come from.
        blinding_sha256: Hash of the seed of its own mask.
    """

    envelope: bytes
    pairing: bytes
    blinding_sha256: str


def read_keys(letter: bytes, terms: Terms, sender: str) -> PublicKeys:
    """The keys in a signed letter; ``Misconduct`` when they are forged, replayed or unusable."""
    body, _ = read_letter(letter, terms, KEYS, sender)
    keys = PublicKeys(
        field_of(body, "envelope", sender, KEYS),
        field_of(body, "pairing", sender, KEYS),
        str(body.get("blinding_sha256")),
    )
    probe = bytes(range(32))
    for public in (keys.envelope, keys.pairing):
        try:
            agree(probe, public, terms.session, "probe")
        except ValueError as error:
            raise Misconduct(sender, "advertised a key nothing can be agreed with") from error
    return keys


def seed_hash(terms: Terms, dealer: str, seed: bytes) -> str:
    """What a hospital commits itself to with its keys."""
    return sha256(canonical({"session": terms.session, "dealer": dealer, "seed": seed.hex()}))


def share_hash(terms: Terms, dealer: str, holder: str, kind: str, share: int) -> str:
    """What a dealer commits itself to for one share."""
    document = {"session": terms.session, "dealer": dealer, "holder": holder, "kind": kind}
    return sha256(canonical(document | {"share": f"{share:066x}"}))


def write_share(
    terms: Terms, dealer: str, holder: str, shares: Mapping[str, int], key: bytes
) -> dict[str, Any]:
    """The body of the letter that brings one holder its two shares, sealed with ``key``."""
    plain = b"".join(shares[kind].to_bytes(shamir.SHARE_BYTES) for kind in KINDS)
    hashes = {kind: share_hash(terms, dealer, holder, kind, shares[kind]) for kind in KINDS}
    return {"to": holder, "sealed": seal_once(key, plain).hex(), "hashes": hashes}


def read_share(letter: bytes, terms: Terms, dealer: str, holder: str, key: bytes) -> dict[str, int]:
    """The two shares a dealer sealed for this holder.

    Raises:
        Misconduct: The letter is forged or replayed, does not open, or the shares are not those
            the dealer committed itself to.
    """
    hashes, sealed = read_share_hashes(letter, terms, dealer, holder)
    plain = open_once(key, sealed)
    if plain is None or len(plain) != shamir.SHARE_BYTES * len(KINDS):
        raise Misconduct(dealer, f"sent {holder} shares that do not open")
    parts = (plain[: shamir.SHARE_BYTES], plain[shamir.SHARE_BYTES :])
    shares = {kind: int.from_bytes(part) for kind, part in zip(KINDS, parts, strict=True)}
    for kind, share in shares.items():
        if hashes[kind] != share_hash(terms, dealer, holder, kind, share):
            raise Misconduct(dealer, f"sent {holder} a share it did not commit itself to")
    return shares


def read_share_hashes(
    letter: bytes, terms: Terms, dealer: str, holder: str
) -> tuple[dict[str, str], bytes]:
    """A dealer's hashes of one holder's shares, and the sealed shares themselves."""
    body, _ = read_letter(letter, terms, SHARES, dealer)
    hashes = body.get("hashes")
    if body.get("to") != holder or not isinstance(hashes, dict) or set(hashes) != set(KINDS):
        raise Misconduct(dealer, f"sent shares that are not addressed to {holder}")
    return hashes, field_of(body, "sealed", dealer, SHARES)


def envelope_key(terms: Terms, private: bytes, public: bytes, dealer: str, holder: str) -> bytes:
    """The key that seals one dealer's shares to one holder."""
    return agree(private, public, terms.session, f"share {len(dealer)} {dealer} {holder}")


def pairing_key(terms: Terms, private: bytes, public: bytes, one: str, other: str) -> bytes:
    """The key of the mask that two hospitals have in common, the same from either side."""
    first, second = sorted((one, other))
    return agree(private, public, terms.session, f"mask {len(first)} {first} {second}")


def require_pairing(terms: Terms, dealer: str, private: bytes | None, keys: PublicKeys) -> bytes:
    """A joined private key, if it belongs to what its dealer advertised."""
    if private is None or public_key(private) != keys.pairing:
        raise Misconduct(dealer, "dealt shares that do not add up to its key")
    return private


def require_blinding(terms: Terms, dealer: str, seed: bytes | None, keys: PublicKeys) -> bytes:
    """A joined seed, if it is the one its dealer committed itself to."""
    if seed is None or seed_hash(terms, dealer, seed) != keys.blinding_sha256:
        raise Misconduct(dealer, "dealt shares that do not add up to its seed")
    return seed


def blinding_mask_key(terms: Terms, seed: bytes) -> bytes:
    """The key of the mask that a hospital puts on alone."""
    return derive(seed, terms.session, "mask alone")
