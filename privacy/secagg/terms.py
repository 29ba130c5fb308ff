"""The terms of one secure sum: who takes part, in which round, and how many must survive.

Every message is bound to the hash of the terms, and through it to run, round, attempt, roster,
signing keys and every hospital's plan: what was said in one session means nothing in another.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property

from wardround.privacy.errors import BadMessage
from wardround.privacy.mechanisms import bound
from wardround.privacy.signing import canonical, sha256

LEAST_SUM = 3  # in a sum of two, each knows the other's part
WORD_BITS = (32, 64)
_HASH = re.compile(r"[0-9a-f]{64}")


def least_threshold(hospitals: int) -> int:
    """The fewest survivors that may be summed: two thirds, so that no two sums can both be had.

    With t of K needed for each of two survivor lists, 2t - K hospitals would have to sign both;
    an honest one signs one.
    """
    return max(LEAST_SUM, -(-2 * hospitals // 3))


def check_threshold(hospitals: int, threshold: int) -> None:
    """Raise ``ValueError`` unless ``threshold`` of ``hospitals`` is safe and can be reached."""
    least = least_threshold(hospitals)
    fits = least <= threshold <= hospitals
    what = f"at least {least} (two thirds, and 3) and at most {hospitals}, the hospitals there are"
    bound("threshold", threshold, fits, what)


@dataclass(frozen=True)
class SecureSum:
    """What a plan says about the secure sum its update goes into; policies decide on it.

    Attributes:
        hospitals: How many are invited.
        threshold: Fewest survivors whose sum may be opened; also how many shares of noise are
            planned for, where the noise is distributed.
        bits: Masks and sums are modulo ``2**bits``.
        largest: Largest magnitude of a coordinate of an update; what lies beyond is cut to it.
            Where the noise is distributed, bounds follow from the plan instead.
    """

    hospitals: int
    threshold: int
    bits: int = 32
    largest: float = 8.0

    def __post_init__(self) -> None:
        check_threshold(self.hospitals, self.threshold)
        bound("bits", self.bits, self.bits in WORD_BITS, "32 or 64")
        bound("largest", self.largest, 0 < self.largest < math.inf, "finite and greater than 0")


@dataclass(frozen=True)
class Terms:
    """What all parties of one secure sum agree on; public in every part.

    Attributes:
        run: Identifier of the run.
        round: Which round of it.
        attempt: Tells a repeated attempt at the same round from the first; chosen by the
            coordinator.
        threshold: Fewest survivors whose sum may be opened, and fewest shares that open a secret.
        bits: Masks and sums are modulo ``2**bits``.
        size: How many words each hospital sends.
        members: Public signing key of every hospital invited, by name.
        plans: Hash of the plan each hospital was sent, by name.
    """

    run: str
    round: int
    attempt: str
    threshold: int
    bits: int
    size: int
    members: Mapping[str, str]
    plans: Mapping[str, str]

    def __post_init__(self) -> None:
        check_threshold(len(self.members), self.threshold)
        bound("round", self.round, self.round >= 1, "1 or more")
        bound("bits", self.bits, self.bits in WORD_BITS, "32 or 64")
        bound("size", self.size, self.size >= 1, "1 or more")
        if self.members.keys() != self.plans.keys():
            raise ValueError("members and plans name different hospitals")
        for digest in (*self.members.values(), *self.plans.values()):
            if not isinstance(digest, str) or not _HASH.fullmatch(digest):
                raise ValueError(f"{digest!r} is not 64 hexadecimal digits")

    @cached_property
    def session(self) -> str:
        """Hash of all of it: what every message carries."""
        return sha256(canonical(asdict(self)))

    @cached_property
    def points(self) -> dict[str, int]:
        """Where each hospital's Shamir share is evaluated: 1, 2, … in order of the names."""
        return {name: point for point, name in enumerate(sorted(self.members), 1)}

    def require_enough(self, hospitals: int, what: str) -> None:
        """Raise ``BadMessage`` when too few take part in the next step."""
        if hospitals < self.threshold:
            raise BadMessage(f"{hospitals} {what}; the threshold is {self.threshold}")
