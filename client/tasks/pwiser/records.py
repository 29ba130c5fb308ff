"""What the task knows of one record: a session, that is, what was shown together to one person."""

from __future__ import annotations

from dataclasses import dataclass

from wardround.client.tasks.base import Record
from wardround.privacy import Unit


@dataclass(frozen=True)
class Exposure:
    """One thing shown to one person, and what came of it.

    Attributes:
        categorical: One index a column, the column's number of values where it was beyond them.
        numerical: One finite number a column.
        click: Whether it was looked at.
        conversion: Whether it was taken up.
    """

    categorical: tuple[int, ...]
    numerical: tuple[float, ...]
    click: bool
    conversion: bool

    def __post_init__(self) -> None:
        if self.conversion and not self.click:
            raise ValueError("a conversion without a click")


@dataclass(frozen=True)
class Session:
    """What was shown together.

    Attributes:
        exposures: One or more, in the file's order.
    """

    exposures: tuple[Exposure, ...]


def session_record(
    identifier: str, exposures: tuple[Exposure, ...], patient: str, block: str = ""
) -> Record:
    """A record of one session, its patient's where one is named, and its block's."""
    owners = {Unit.RECORD: identifier}
    if patient:
        owners[Unit.PATIENT] = patient
    if block:
        owners[Unit.LIST] = block
    return Record(identifier, owners, Session(exposures))
