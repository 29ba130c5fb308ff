"""``[strategy]`` of a study file: how updates are combined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wardround.privacy.errors import BadInput
from wardround.privacy.plan import Mode
from wardround.privacy.tables import from_table
from wardround.strategies.encoding import Encoding

PRIVATE_DEFAULT = "rolora"
UNPROTECTED_DEFAULT = "fedavg"


@dataclass(frozen=True)
class StrategySection:
    """``[strategy]``: how updates are combined.

    Attributes:
        name: Registered strategy name; a study that names none gets that of its mode of privacy
            (docs/strategies.md says why these two).
        encoding: How hospitals write their updates: fp32, bf16, int8 or int4.
        settings: The table's other keys, for the strategy itself.
    """

    name: str
    encoding: Encoding = Encoding.FP32
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_table(cls, table: object, where: str, mode: Mode) -> StrategySection:
        """The section; every key but ``name`` and ``encoding`` is the strategy's own."""
        if not isinstance(table, Mapping):
            raise BadInput(f"{where}: expected a table, found {type(table).__name__}")
        own = {key: value for key, value in table.items() if key in ("name", "encoding")}
        settings = {key: value for key, value in table.items() if key not in own}
        default = UNPROTECTED_DEFAULT if mode is Mode.NONE else PRIVATE_DEFAULT
        return from_table(cls, {"name": default, **own, "settings": settings}, where)

    def to_table(self) -> dict[str, Any]:
        """The table ``from_table`` makes the same section of."""
        return {"name": self.name, "encoding": self.encoding.value, **self.settings}
