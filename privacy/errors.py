"""Errors that a person can act on; each knows the exit code its command ends with.

Exit code 2 means the input was wrong (usage), 3 that a rule refused it.
"""

from __future__ import annotations

from typing import ClassVar


class WardroundError(Exception):
    """Anything Wardround refuses or cannot do; the message names file, field, value and bound."""

    exit_code: ClassVar[int] = 3


class BadInput(WardroundError):
    """A file, option or value that cannot be used as written."""

    exit_code: ClassVar[int] = 2


class BadMessage(WardroundError):
    """Bytes from the wire or from disk that are not what they claim to be."""


class UntrustedPeer(WardroundError):
    """A signature that does not verify, or a key nobody enrolled."""


class PolicyRefused(WardroundError):
    """A hospital's policy does not allow what a plan asks for."""


class BudgetExceeded(PolicyRefused):
    """A plan would spend more epsilon than the hospital allows for this data set."""


class LedgerError(WardroundError):
    """The ledger is damaged, locked or rolled back; nothing was released."""
