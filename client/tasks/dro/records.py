"""What a safeguarding record says: a query, and whether it must be refused.

Knows nothing of files, templates or models.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Query:
    """A query with its label.

    Attributes:
        text: What a user asks.
        harmful: Whether it must be refused; otherwise it must be answered.
        good: A reply that is right; empty where none was written. Vanilla prompt tuning needs it.
        bad: A reply that is wrong, likewise.
        answered: How often the base answers it, without a prompt and under the words; empty where
            nobody has measured.
    """

    text: str
    harmful: bool
    good: str = ""
    bad: str = ""
    answered: tuple[float, ...] = ()

    @property
    def label(self) -> float:
        """0 for harmful, 1 for harmless, as the losses take it."""
        return 0.0 if self.harmful else 1.0
