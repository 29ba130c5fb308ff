"""FedSVD: as FFA-LoRA, and after a round B·A is factored anew with orthonormal rows in A.

The product stays what it was, so this is post-processing and costs no privacy. Orthonormal rows
keep the gradient of B no longer than that of the layer, so clipping cuts less. The row space of A
never changes: it is a better basis of FFA's subspace, no larger one. Source: Lee et al. (2025),
"FedSVD: adaptive orthogonalization for private federated learning with LoRA", section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from wardround.strategies.base import State
from wardround.strategies.factors import layers, product, write_product
from wardround.strategies.ffa import Ffa
from wardround.strategies.low_rank import turned


@dataclass(frozen=True)
class FedSvd(Ffa):
    """Frozen-A LoRA whose A is turned between rounds.

    Attributes:
        every: Rounds between two factorisations.
    """

    every: int = 1
    name: ClassVar[str] = "fedsvd"

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every is {self.every}; it must be 1 or more")

    def settle(self, state: State, round_number: int) -> State:
        """The same products, with A as right singular vectors and B as the rest."""
        if round_number % self.every:
            return state
        for layer in layers(state):
            state |= write_product(layer, turned(product(state, layer)))
        return state
