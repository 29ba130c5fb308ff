"""A reservation: proof that the ledger has charged for a release before its noise is drawn.

Law 2, "charge first", as a value: the noise functions ask for a reservation, only the ledger makes
one, and it pays for exactly the events that were charged.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field

from wardround.privacy._seal import require_seal
from wardround.privacy.errors import LedgerError
from wardround.privacy.events import Event, primitive_counts


@dataclass
class Reservation:
    """What was charged for one round, and what of it has been used.

    Attributes:
        run: Identifier of the run the charge belongs to.
        round: Round number inside the run, from 1.
        plan_sha256: Hash of the plan the charge was made for.
        event: Everything the ledger charged.
    """

    run: str
    round: int
    plan_sha256: str
    event: Event
    seal: InitVar[object] = None
    _left: dict[Event, int] = field(init=False, repr=False)

    def __post_init__(self, seal: object) -> None:
        require_seal(seal, "Reservation")
        self._left = primitive_counts(self.event)

    def take(self, event: Event) -> None:
        """Use up one charged event.

        Raises:
            LedgerError: This event was not charged, or not that often.
        """
        if self._left.get(event, 0) < 1:
            raise LedgerError(
                f"round {self.round} of run {self.run} charged no more {event}; nothing was drawn"
            )
        self._left[event] -= 1
