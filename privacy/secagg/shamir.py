"""Shamir's secret sharing over a prime field: any ``threshold`` shares give the secret back.

Fewer than ``threshold`` shares say nothing: every secret fits them equally well. Secrets are 32
bytes; the field is that of the smallest prime above 2**256, so each of them is an element.
Source: Shamir (1979), "How to share a secret".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from wardround.privacy.stream import SecureStream

PRIME = 2**256 + 297
SECRET_BYTES = 32
SHARE_BYTES = 33
_MASK = 2**257 - 1


def split(
    secret: bytes, threshold: int, points: Iterable[int], stream: SecureStream
) -> dict[int, int]:
    """One share a point: a random polynomial through the secret at 0, evaluated there.

    Args:
        secret: 32 bytes.
        threshold: How many shares it takes to get the secret back.
        points: Where to evaluate; not 0, which would be the secret itself.
        stream: Where the polynomial's other coefficients come from.
    """
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"the secret has {len(secret)} bytes; expected {SECRET_BYTES}")
    coefficients = [int.from_bytes(secret)] + [_element(stream) for _ in range(threshold - 1)]
    shares = {}
    for point in points:
        if not 0 < point < PRIME:
            raise ValueError(f"a share at point {point} is refused")
        value = 0
        for coefficient in reversed(coefficients):
            value = (value * point + coefficient) % PRIME
        shares[point] = value
    return shares


def join(shares: Mapping[int, int]) -> bytes | None:
    """The secret that exactly these shares give: the polynomial through them, at 0 (Lagrange).

    Returns:
        32 bytes, or None when the value there is not one that 32 bytes can be.
    """
    secret = 0
    for point, value in shares.items():
        above, below = 1, 1
        for other in shares:
            if other != point:
                above = above * other % PRIME
                below = below * (other - point) % PRIME
        secret = (secret + value * above * pow(below, -1, PRIME)) % PRIME
    return secret.to_bytes(SECRET_BYTES) if secret < 2**256 else None


def _element(stream: SecureStream) -> int:
    """A uniform field element: 257 random bits, drawn again where they are too large."""
    while True:
        drawn = int.from_bytes(stream.words(5).tobytes()) & _MASK
        if drawn < PRIME:
            return drawn
