"""Strategies by name; the listing is kept here, so that showing it imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, cast

from wardround.privacy.errors import BadInput
from wardround.privacy.tables import nearest

if TYPE_CHECKING:
    from wardround.strategies.base import Strategy


@dataclass(frozen=True)
class StrategyListing:
    """A strategy as a table shows it.

    Attributes:
        name: As study files spell it.
        summary: One line.
        paper: Where it comes from.
        location: ``module:class``.
    """

    name: str
    summary: str
    paper: str
    location: str


_LISTINGS = (
    StrategyListing(
        "fedavg",
        "Uniform mean of the hospitals' changes of A and B",
        "McMahan et al. (2017); Liu et al. (2023), DP-LoRA",
        "wardround.strategies.fedavg:FedAvg",
    ),
)


def list_strategies() -> tuple[StrategyListing, ...]:
    """Every strategy, by name."""
    return tuple(sorted(_LISTINGS, key=lambda listing: listing.name))


def find_strategy(name: str) -> Strategy:
    """The strategy called ``name``; ``BadInput`` suggests the nearest when there is none."""
    by_name = {listing.name: listing for listing in _LISTINGS}
    if name not in by_name:
        raise BadInput(f"[strategy] name is {name!r}: no such strategy{nearest(name, [*by_name])}")
    module, _, attribute = by_name[name].location.partition(":")
    return cast("Strategy", getattr(import_module(module), attribute)())
