"""Strategies by name, with their traits, and how to make one from its settings.

Names and traits are kept apart from the code, so that showing them imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from wardround.privacy.errors import BadInput
from wardround.privacy.tables import from_table, nearest, refuse_unknown
from wardround.strategies.parts import (
    Parts,
    Surrounding,
    read_parts,
    require_compatible,
    split_settings,
)

if TYPE_CHECKING:
    from wardround.strategies.base import Strategy


@dataclass(frozen=True)
class Traits:
    """What a strategy does and may be combined with.

    Bytes are numbers per adapted m x n matrix at rank r, K hospitals, four bytes each.

    Attributes:
        leaves: What leaves a hospital.
        bytes_up: How much that is.
        bytes_down: How much goes down to each hospital.
        noise: How noise of standard deviation s per number shows in the squared product B·A.
        exact: Whether the aggregate is the exact mean of the products.
        mixed_ranks: Whether hospitals may have different ranks.
        alternates: What makes one round's changes unlike another's: other arrays move in other
            ``rounds``, or in other ``steps`` of each, or they are written in another ``basis``.
        reshapes: Whether hospitals train another adapter than the one that is deployed.
        personal: Whether a part stays at each hospital, so that there is no one final model.
        needs_single_updates: Why the mean of updates is not enough; empty when it is.
        secure_aggregation: Whether a secure sum is enough.
        trains: Whether there is a model to train; not so where tasks send statistics.
    """

    leaves: str
    bytes_up: str
    bytes_down: str
    noise: str
    exact: bool
    mixed_ranks: bool = False
    alternates: str = ""
    reshapes: bool = False
    personal: bool = False
    needs_single_updates: str = ""
    trains: bool = True

    @property
    def secure_aggregation(self) -> bool:
        """Whether a secure sum of all that trains is enough."""
        return not self.beyond_a_sum

    @property
    def beyond_a_sum(self) -> str:
        """Why a secure sum is not enough, or too much; empty when it is right."""
        if self.personal:
            return "a secure sum takes everything that trains, and a part is to stay at home"
        return self.needs_single_updates


@dataclass(frozen=True)
class StrategyListing:
    """A strategy as a table shows it.

    Attributes:
        name: As study files spell it.
        summary: One line.
        paper: Where it comes from.
        location: ``module:class``.
        traits: What it does and may be combined with.
    """

    name: str
    summary: str
    paper: str
    location: str
    traits: Traits

    def to_row(self) -> dict[str, Any]:
        """As one row of a table."""
        traits = asdict(self.traits) | {"secure_aggregation": self.traits.secure_aggregation}
        return {"name": self.name, "summary": self.summary, "paper": self.paper, **traits}


_SINGLE = "products of factors are not linear in what hospitals send"

_LISTINGS = (
    StrategyListing(
        "fedavg",
        "Uniform mean of the hospitals' changes of A and B",
        "McMahan et al. (2017); Liu et al. (2023), DP-LoRA",
        "wardround.strategies.fedavg:FedAvg",
        Traits("A, B", "r(m+n)", "r(m+n)", "s² + s⁴", exact=False),
    ),
    StrategyListing(
        "ffa",
        "A is drawn once and frozen; mean of B",
        "Sun et al. (2024), FFA-LoRA",
        "wardround.strategies.ffa:Ffa",
        Traits("B", "rm", "r(m+n)", "s²", exact=True, mixed_ranks=True),
    ),
    StrategyListing(
        "rolora",
        "Mean of B in odd rounds, of A in even ones",
        "Chen et al. (2025), RoLoRA",
        "wardround.strategies.rolora:RoLora",
        Traits(
            "B or A", "rm or rn", "r(m+n)", "s²", exact=True, mixed_ranks=True, alternates="rounds"
        ),
    ),
    StrategyListing(
        "fedsvd",
        "As ffa, and A becomes right singular vectors of B·A between rounds",
        "Lee et al. (2025), FedSVD",
        "wardround.strategies.fedsvd:FedSvd",
        Traits("B", "rm", "r(m+n)", "s²", exact=True, mixed_ranks=True, alternates="basis"),
    ),
    StrategyListing(
        "fed_sb",
        "Mean of a square R between frozen factors",
        "Singhal et al. (2025), Fed-SB; Ponkshe et al. (2024), LoRA-SB",
        "wardround.strategies.fed_sb:FedSb",
        Traits("R", "r²", "r(m+n+r)", "s² on r² numbers", exact=True, reshapes=True),
    ),
    StrategyListing(
        "fedsa",
        "Mean of A; every hospital keeps its own B",
        "Guo et al. (2025), FedSA-LoRA",
        "wardround.strategies.fedsa:FedSa",
        Traits("A", "rn", "rn", "s² + s⁴, at home", exact=True, personal=True),
    ),
    StrategyListing(
        "la_lora",
        "B and A move in turn, step by step; mean of both",
        "Liu et al. (2026), LA-LoRA",
        "wardround.strategies.la_lora:LaLora",
        Traits(
            "A, B",
            "r(m+n)",
            "r(m+n)",
            "s² a step, s² + s⁴ a round",
            exact=False,
            alternates="steps",
        ),
    ),
    StrategyListing(
        "flora",
        "Products are stacked into the frozen background; fresh factors every round",
        "Wang et al. (2024), FLoRA",
        "wardround.strategies.flora:Flora",
        Traits(
            "A, B",
            "r(m+n)",
            "up to min(TKr, m, n)(m+n) in round T",
            "s² + s⁴, for ever",
            exact=True,
            mixed_ranks=True,
            needs_single_updates=_SINGLE,
        ),
    ),
    StrategyListing(
        "fedex",
        "Mean of A and B, and what that gets wrong into the frozen background",
        "Singhal et al. (2025), FedEx-LoRA",
        "wardround.strategies.fedex:FedEx",
        Traits(
            "A, B",
            "r(m+n)",
            "up to min(T(K-1)r, m, n)(m+n) in round T",
            "s² + s⁴",
            exact=True,
            mixed_ranks=True,
            needs_single_updates=_SINGLE,
        ),
    ),
    StrategyListing(
        "flexlora",
        "Mean product, cut to each rank by QR and a small singular value decomposition",
        "Bai et al. (2024), FlexLoRA; Liu et al. (2025), HLoRA",
        "wardround.strategies.flexlora:FlexLora",
        Traits(
            "A, B",
            "r(m+n)",
            "r(m+n)",
            "s² + s⁴, cut to r columns",
            exact=True,
            mixed_ranks=True,
            needs_single_updates=_SINGLE,
        ),
    ),
    StrategyListing(
        "tally",
        "Keeps each site's released statistics apart, for tasks that train nothing",
        "Conitzer et al. (2024)",
        "wardround.strategies.tally:Tally",
        Traits(
            "statistics",
            "d",
            "d",
            "none: no product",
            exact=True,
            needs_single_updates="it keeps sites apart",
            trains=False,
        ),
    ),
)


def list_strategies() -> tuple[StrategyListing, ...]:
    """Every strategy, by name."""
    return tuple(sorted(_LISTINGS, key=lambda listing: listing.name))


def find_listing(name: str) -> StrategyListing:
    """The listing of the strategy called ``name``; ``BadInput`` suggests the nearest."""
    by_name = {listing.name: listing for listing in _LISTINGS}
    if name not in by_name:
        raise BadInput(f"[strategy] name is {name!r}: no such strategy{nearest(name, [*by_name])}")
    return by_name[name]


def require_secure_aggregation(name: str, where: str = "[strategy]") -> None:
    """Refuse a strategy whose updates cannot go into one secure sum.

    Raises:
        BadInput: With the reason, and the strategies that need nothing but the sum.
    """
    reason = find_listing(name).traits.beyond_a_sum
    if reason:
        able = (entry.name for entry in list_strategies() if entry.traits.secure_aggregation)
        raise BadInput(
            f"{where} name is {name!r}, which does not work under secure aggregation: {reason}; "
            f"use one of {', '.join(able)}"
        )


def make_strategy(
    name: str,
    settings: Mapping[str, Any] | None = None,
    where: str = "[strategy]",
    around: Surrounding | None = None,
) -> Strategy:
    """The strategy called ``name`` with these settings, some of which may be parts.

    Args:
        name: Registered name.
        settings: The other keys of the ``[strategy]`` table.
        where: File and table, for messages.
        around: What the study has beside its strategy; needed for parts.

    Raises:
        BadInput: No strategy has that name, it does not have such a setting, or parts do not go
            together.
    """
    listing = find_listing(name)
    module, _, attribute = listing.location.partition(":")
    kind: type[Strategy] = getattr(import_module(module), attribute)
    chosen, own = split_settings(settings or {})
    refuse_unknown(own, [*_names(kind), *_names(Parts)], where)
    strategy: Strategy = from_table(kind, own, where)
    parts = read_parts(chosen, where)
    released = around is not None and around.losses
    if not (parts.exchanged or parts.worst_hospital or released):
        return strategy
    if around is None:
        raise ValueError("parts depend on the study around them; none was given")
    traits = listing.traits
    facts = replace(
        around, needs_single_updates=traits.needs_single_updates, alternates=traits.alternates
    )
    require_compatible(parts, facts, where)
    from wardround.strategies.composed import compose

    try:
        return compose(strategy, parts, around.hospitals, around.reach)
    except ValueError as error:
        raise BadInput(f"{where} server_{error}") from error


def _names(kind: Any) -> list[str]:
    """The settings that a dataclass has."""
    return [field.name for field in fields(kind)]
