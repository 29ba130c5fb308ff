"""A reservation: proof that the ledger has charged for a release before its noise is drawn.

Law 2, "charge first", as a value: the noise functions ask for a reservation, only the ledger makes
one, and it pays for exactly the events that were charged.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field

from wardround.privacy._seal import require_seal
from wardround.privacy.errors import LedgerError
from wardround.privacy.events import Event, Primitive, covers, primitive_counts


@dataclass(eq=False)
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
    _left: dict[Primitive, int] = field(init=False, repr=False)

    def __post_init__(self, seal: object) -> None:
        require_seal(seal, "Reservation")
        self._left = primitive_counts(self.event)

    def take(self, event: Event) -> None:
        """Use up one charged event, and all its parts when it is a composed one.

        Raises:
            LedgerError: This event was not charged, or not that often.
        """
        wanted = primitive_counts(event)
        if any(self._left.get(part, 0) < count for part, count in wanted.items()):
            raise LedgerError(
                f"round {self.round} of run {self.run} charged no more {event}; nothing was drawn"
            )
        for part, count in wanted.items():
            self._left[part] -= count

    def revoke(self) -> None:
        """Make it worthless: the same charge was handed out again for work done anew."""
        self._left.clear()

    def require_covers(self, event: Event) -> None:
        """Raise ``LedgerError`` unless a value with this history stays within the charge."""
        if not covers(self.event, event):
            raise LedgerError(
                f"round {self.round} of run {self.run}: the value to send costs more than was "
                "charged; it stays here"
            )
