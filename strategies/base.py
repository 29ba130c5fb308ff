"""The seam of a strategy: what hospitals start from, what comes back, what the next model is.

A strategy is one frozen object made from the ``[strategy]`` table. Everything it keeps between
rounds is one flat mapping of arrays, so that a checkpoint of arrays is a checkpoint of everything.
What hospitals send is the change of named arrays, already noised; whatever a strategy makes of it
is post-processing and costs no privacy. Knows no records, no noise and no policies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

Arrays = Mapping[str, Tensor]
State = dict[str, Tensor]

SERVER = "server/"  # names of arrays that no hospital sees begin with it
CONTROL = "control/"  # names of what is added to a hospital's gradients begin with it


@dataclass(frozen=True)
class Brief:
    """What one hospital gets in one round; hospitals of one rank get equal briefs.

    Attributes:
        arrays: Values the hospital starts from, by wire name.
        trains: Names among them that may change; the changes of these, and no more, come back.
        keeps: Names that train too and never leave the hospital, which starts them at zero.
        turns: Names that move in a local step, step after step in turn; all that train, in every
            step, when empty.
        background: Frozen products added to layers of the model (``strategies.factors``).
        adapter: Settings laid over the study's ``[adapter]``.
        training: Settings laid over the study's ``[training]``.
    """

    arrays: Arrays
    trains: tuple[str, ...]
    keeps: tuple[str, ...] = ()
    turns: tuple[tuple[str, ...], ...] = ()
    background: Arrays = field(default_factory=dict)
    adapter: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def expects(self) -> dict[str, Tensor]:
        """The arrays whose changes must come back, for their names and shapes."""
        return {name: self.arrays[name] for name in self.trains}


@dataclass(frozen=True)
class Update:
    """One hospital's answer, its names, shapes and values already checked.

    Attributes:
        hospital: Who sent it.
        change: By how much each trained array moved; noised at the hospital.
        rank: The hospital's own adapter rank, where hospitals differ.
        age: How many rounds ago the values were sent that it started from.
        deviation: Standard deviation of the noise in each number, where it is known.
    """

    hospital: str
    change: Arrays
    rank: int | None = None
    age: int = 0
    deviation: float | None = None


@dataclass(frozen=True)
class Model:
    """What evaluation and export see.

    Attributes:
        arrays: The adapter's arrays, by wire name.
        background: Frozen products beside it (``strategies.factors``).
    """

    arrays: Arrays
    background: Arrays = field(default_factory=dict)


class Aggregation(Protocol):
    """One round's running aggregate; what is added may be dropped afterwards."""

    def add(self, update: Update) -> None:
        """Take in one hospital's change."""

    def finish(self) -> State:
        """The next state.

        Raises:
            ValueError: Nobody sent anything.
        """


@runtime_checkable
class Correcting(Protocol):
    """What some strategies can do besides: correct every hospital's gradients in its own way."""

    def corrections(self, state: Arrays, hospital: str) -> State:
        """What one hospital is sent to be added to its gradients, under names for the wire."""


class SummingAggregation(Aggregation, Protocol):
    """An aggregate that needs no single update: of strategies with ``secure_aggregation``."""

    def add_sum(self, total: Arrays, count: int) -> None:
        """Take in the sum of ``count`` hospitals' changes, none of which was seen alone."""


class Strategy(Protocol):
    """How updates are combined. A frozen dataclass whose fields are its ``[strategy]`` settings."""

    @property
    def name(self) -> str:
        """As study files and policies spell it."""

    def start(self, arrays: Arrays) -> State:
        """The state before the first round, from the task's initial adapter arrays.

        Raises:
            BadInput: The strategy cannot work on these arrays.
        """

    def brief(self, state: Arrays, round_number: int, rank: int | None = None) -> Brief:
        """What hospitals of this rank get in this round; None where all ranks are equal."""

    def begin(self, state: Arrays, round_number: int) -> Aggregation:
        """An empty aggregate for the answers to this round's briefs."""

    def deploy(self, state: Arrays) -> Model:
        """The model that this state stands for."""
