"""Strategies by name. Importing this module imports no torch: each is loaded when asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

from wardround.privacy.errors import BadInput
from wardround.privacy.tables import nearest

if TYPE_CHECKING:
    from wardround.strategies.base import Strategy

_MODULES = {"fedavg": ("wardround.strategies.fedavg", "FedAvg")}


def strategy_names() -> list[str]:
    """Names of all strategies, sorted."""
    return sorted(_MODULES)


def find_strategy(name: str) -> Strategy:
    """The strategy called ``name``; ``BadInput`` suggests the nearest when there is none."""
    if name not in _MODULES:
        hint = nearest(name, strategy_names())
        raise BadInput(f"[strategy] name is {name!r}: no such strategy{hint}")
    module, attribute = _MODULES[name]
    return cast("Strategy", getattr(importlib.import_module(module), attribute)())
