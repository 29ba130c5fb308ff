"""Which columns a click log has, and how many values each may take: public, part of the plan.

Vocabulary sizes must never be counted in private data; a study declares them, and a value beyond
what was declared falls into one bucket of its own column. Knows nothing of files or models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

_MOST_VALUES = 10_000_000


class Layout(StrEnum):
    """Whose files these are; ``custom`` reads ``[task.columns]``."""

    PROGRAMMES = "programmes"
    ALIEXPRESS = "aliexpress"
    ALI_CCP = "ali-ccp"
    CUSTOM = "custom"


@dataclass(frozen=True)
class Columns:
    """The columns of a csv file, by their names in its header.

    Attributes:
        categorical: Number of values by column, counted from 0; what lies beyond shares a bucket.
        numerical: Columns of finite numbers, scaled already.
        click: Whether it was looked at, 0 or 1.
        conversion: Whether it was taken up, 0 or 1; never without a click.
        session: Rows with the same value are one record; each row is one where this is empty.
        patient: Whose rows they are; nobody's where this is empty.
        ignored: Columns that are read over.
    """

    categorical: Mapping[str, int] = field(default_factory=dict)
    numerical: tuple[str, ...] = ()
    click: str = "click"
    conversion: str = "conversion"
    session: str = ""
    patient: str = ""
    ignored: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, values in self.categorical.items():
            if isinstance(values, bool) or not isinstance(values, int):
                raise ValueError(f"categorical {name} is {values!r}; it must be a whole number")
            if not 1 <= values <= _MOST_VALUES:
                raise ValueError(
                    f"categorical {name} is {values}; it must be 1 to {_MOST_VALUES:,}"
                )
        names = self.names
        twice = sorted({name for name in names if names.count(name) > 1})
        # A user's number may be a feature and say whose row it is, both.
        twice = [name for name in twice if name not in (self.session, self.patient)]
        if twice:
            raise ValueError(f"column {twice[0]!r} is named twice")
        if not self.click or not self.conversion:
            raise ValueError("click and conversion must name columns")

    @property
    def names(self) -> list[str]:
        """Every column that is named, in the order of the fields."""
        keys = [name for name in (self.session, self.patient) if name]
        features = [*self.categorical, *self.numerical]
        return [*keys, *features, self.click, self.conversion, *self.ignored]


# What a made-up log of care programmes holds (``generated``).
PROGRAMMES = Columns(
    categorical={"age_group": 5, "condition": 8, "programme": 24, "kind": 6, "ward": 6},
    numerical=("position", "activity", "length"),
    session="session",
    patient="patient",
)
_CCP_USER = ("101", "121", "122", "124", "125", "126", "127", "128", "129")
_CCP_ITEM = ("205", "206", "207", "210", "216")
_CCP_CROSSED = ("508", "509", "702", "853")
_CCP_PLACE = ("301",)
_CCP_HISTORY = ("109_14", "110_14", "127_14", "150_14")
_CCP_DENSE = ("D109_14", "D110_14", "D127_14", "D150_14", "D508", "D509", "D702", "D853")


def columns_of(layout: Layout, vocabulary: int) -> Columns:
    """The columns of a known layout, ``vocabulary`` values for each categorical one.

    AliExpress as MTReclib preprocesses it (16 categorical, 63 numerical; the session is all that is
    left of who searched), Ali-CCP as torch-rechub does (field 101 is the user).
    """
    if layout is Layout.PROGRAMMES:
        return PROGRAMMES
    if layout is Layout.ALIEXPRESS:
        return Columns(
            categorical={f"categorical_{place}": vocabulary for place in range(1, 17)},
            numerical=tuple(f"numerical_{place}" for place in range(1, 64)),
            session="search_id",
        )
    return Columns(
        categorical=dict.fromkeys(
            (*_CCP_USER, *_CCP_ITEM, *_CCP_CROSSED, *_CCP_PLACE, *_CCP_HISTORY), vocabulary
        ),
        numerical=_CCP_DENSE,
        conversion="purchase",
        patient="101",
    )
