"""Sessions of several hospitals in memory, from fixed keys, walked through stage by stage."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wardround.privacy.secagg.lattice import Words, word_type
from wardround.privacy.secagg.party import Party
from wardround.privacy.secagg.tally import Tally
from wardround.privacy.secagg.terms import Terms
from wardround.privacy.signing import SigningKey

Drops = Mapping[str, str]  # hospital -> stage before which it falls silent


def key_of(number: int) -> SigningKey:
    """A signing key that is the same in every run of the tests."""
    return SigningKey(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32))


@dataclass
class Session:
    """Some hospitals and a coordinator."""

    terms: Terms
    keys: dict[str, SigningKey]
    seeds: dict[str, bytes]
    parties: dict[str, Party]
    tally: Tally = field(init=False)

    def __post_init__(self) -> None:
        self.tally = Tally(self.terms)

    @property
    def names(self) -> list[str]:
        return list(self.parties)

    def open(self, silent: Collection[str] = ()) -> None:
        """Keys, then shares; ``silent`` ones advertise keys and are never heard of again."""
        for name, party in self.parties.items():
            self.tally.take_keys(name, party.advertise())
        for name, party in self.parties.items():
            if name not in silent:
                self.tally.take_shares(name, party.share(self.tally.keys))

    def mask(self, rows: Mapping[str, Words]) -> None:
        """Masked rows of the hospitals in ``rows``."""
        for name, row in rows.items():
            masked = self.parties[name].mask(self.tally.letters_for(name), row)
            self.tally.take_masked(name, masked)

    def settle(self, silent: Collection[str] = ()) -> Words:
        """Agreement, shares and sum; ``silent`` ones agree and are never heard of again."""
        for name in self.tally.survivors:
            party = self.parties[name]
            self.tally.take_agreement(name, party.agree(self.tally.survivors))
        for name in self.tally.survivors:
            if name not in silent:
                letter = self.parties[name].reveal(self.tally.agreements)
                self.tally.take_reveal(name, letter)
        return self.tally.total()

    def again(self) -> Session:
        """The same session from its beginning: same terms, seeds and keys."""
        parties = {
            name: Party(self.terms, name, self.keys[name], self.seeds[name]) for name in self.names
        }
        return Session(self.terms, self.keys, self.seeds, parties)

    def fork(self) -> Session:
        """A copy that goes its own way from here."""
        parties = {name: copy.copy(party) for name, party in self.parties.items()}
        forked = Session(self.terms, self.keys, self.seeds, parties)
        forked.tally = copy.copy(self.tally)
        for name in ("agreements", "_masked", "_sum", "_revealed"):
            setattr(forked.tally, name, copy.copy(getattr(self.tally, name)))
        forked.tally._shown = {}
        return forked


MakeSession = Callable[..., Session]


@pytest.fixture(scope="session")
def make_session() -> MakeSession:
    """``make_session(6, 4, size=50)``; keyword arguments change the terms."""

    def make(
        hospitals: int = 6, threshold: int = 4, size: int = 50, bits: int = 32, **terms: Any
    ) -> Session:
        keys = {f"h{i}": key_of(i + 1) for i in range(hospitals)}
        common = Terms(
            run="run-1",
            round=1,
            attempt="0",
            threshold=threshold,
            bits=bits,
            size=size,
            members={name: key.public for name, key in keys.items()},
            plans=dict.fromkeys(keys, "0" * 64),
        )
        common = replace(common, **terms)
        seeds = {name: bytes([i + 100]) * 32 for i, name in enumerate(keys)}
        parties = {name: Party(common, name, key, seeds[name]) for name, key in keys.items()}
        return Session(common, keys, seeds, parties)

    return make


@pytest.fixture(scope="session")
def rows_of() -> Callable[[Session], dict[str, Words]]:
    """One row of words for each hospital, with values around zero as updates have."""

    def make(session: Session) -> dict[str, Words]:
        signed = np.arange(session.terms.size, dtype=np.int64) - session.terms.size // 2
        kind = word_type(session.terms.bits)
        return {
            name: (signed * (i + 3)).view(np.uint64).astype(kind)
            for i, name in enumerate(session.names)
        }

    return make
