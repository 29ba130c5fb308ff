"""Secret sharing: any ``threshold`` shares give the secret, fewer fit every secret."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.privacy.secagg.shamir import PRIME, _element, join, split
from wardround.privacy.stream import SecureStream


def a_stream(key: int = 1) -> SecureStream:
    return SecureStream(bytes([key]) * 32)


def test_the_field_is_a_prime_field() -> None:
    """Pocklington would be a proof; Miller-Rabin to 20 bases errs with at most 4**-20."""
    odd, twos = PRIME - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71):
        powers = [pow(base, odd << i, PRIME) for i in range(twos)]
        assert powers[0] == 1 or PRIME - 1 in powers


@settings(max_examples=25, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.integers(2, 6), st.integers(0, 255))
def test_any_threshold_shares_give_the_secret(secret: bytes, threshold: int, key: int) -> None:
    shares = split(secret, threshold, range(1, 8), a_stream(key))
    for points in list(combinations(shares, threshold))[:10]:
        assert join({point: shares[point] for point in points}) == secret
    assert join(shares) == secret


@pytest.mark.parametrize("secret", [b"\x00" * 32, b"\xff" * 32])
def test_extreme_secrets(secret: bytes) -> None:
    assert join(split(secret, 3, (2, 5, 9), a_stream())) == secret


def test_one_share_too_few_fits_every_secret() -> None:
    """Perfect secrecy, by construction: for any other secret, one more share exists that fits."""
    shares = split(b"s" * 32, 3, (1, 2), a_stream())
    for other in (b"\x00" * 32, b"t" * 32):
        wanted = int.from_bytes(other)
        # Solve Lagrange at 0 over the points 1, 2 and 3 for the third share.
        l1, l2, l3 = 3, -3, 1
        third = (wanted - shares[1] * l1 - shares[2] * l2) * pow(l3, -1, PRIME) % PRIME
        assert join({**shares, 3: third}) == other


def test_a_changed_share_gives_something_else() -> None:
    shares = split(b"s" * 32, 3, (1, 2, 3), a_stream())
    assert join({**shares, 2: (shares[2] + 1) % PRIME}) != b"s" * 32


def test_a_value_that_is_no_secret_is_none() -> None:
    assert join({1: PRIME - 1}) is None


def test_elements_are_drawn_again_when_too_large() -> None:
    """257 bits all set are above the prime, so the next draw counts."""

    class Canned:
        drawn = [b"\xff" * 40, b"\x00" * 39 + b"\x07"]

        def words(self, count: int) -> Canned:
            return self

        def tobytes(self) -> bytes:
            return self.drawn.pop(0)

    assert _element(Canned()) == 7  # type: ignore[arg-type]


@pytest.mark.parametrize(("secret", "point"), [(b"short", 1), (b"s" * 32, 0), (b"s" * 32, PRIME)])
def test_what_cannot_be_shared_is_refused(secret: bytes, point: int) -> None:
    with pytest.raises(ValueError, match=r"bytes|point"):
        split(secret, 2, (point,), a_stream())
