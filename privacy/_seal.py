"""The seal that lets only this package construct values carrying a guarantee.

Python has no private constructors, so ``Clipped``, ``Noised`` and ``Reservation`` demand this
object. Importing it outside ``privacy/`` fails ``tests/privacy/test_seal.py``.
"""

from __future__ import annotations

from typing import Final


class _Seal:
    """One instance, compared by identity."""


SEAL: Final = _Seal()


def require_seal(seal: object, what: str) -> None:
    """Raise ``TypeError`` unless ``seal`` is the package's own."""
    if seal is not SEAL:
        raise TypeError(f"{what} can only be made inside wardround.privacy")
