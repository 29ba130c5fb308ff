"""Where a hospital's randomness comes from: the system, or a seed where nothing is secret.

A round without clipping and noise protects nobody, so who joins its steps need not be secret and
can be repeated: the same seed, hospital and round give the same stream, however often and wherever
the round is done again. Every other round gets a stream that nobody can repeat.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from wardround.privacy.plan import Mode, RoundPlan
from wardround.privacy.signing import canonical
from wardround.privacy.stream import SecureStream


@dataclass(frozen=True)
class Streams:
    """Makes the stream of one round.

    Attributes:
        seed: Repeats rounds of mode none; None never repeats anything.
    """

    seed: int | None = None

    def __call__(self, plan: RoundPlan) -> SecureStream:
        """The stream for selection, noise and rounding in this round.

        Privacy: the seed is used in mode none only; it cannot be made to draw noise.
        """
        if self.seed is None or plan.privacy.mode is not Mode.NONE:
            return SecureStream.from_os()
        place = {"seed": self.seed, "hospital": plan.hospital, "round": plan.round}
        return SecureStream(hashlib.sha256(b"wardround stream\n" + canonical(place)).digest())
