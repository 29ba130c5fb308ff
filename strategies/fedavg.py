"""FedAvg on LoRA factors: the plain mean of the hospitals' changes, each counting the same.

Weights are uniform because a weight by number of records would itself tell how many records there
are. Averaging A and B apart is not the average of the products B·A; the difference is the
covariance of the factors over hospitals. Source: McMahan et al. (2017), algorithm 1; Liu et al.
(2023), "DP-LoRA", algorithm 1, with rho_k = 1/K.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from wardround.strategies.base import Arrays


class FedAvg:
    """The mean of all changes, added to the global arrays."""

    name: ClassVar[str] = "fedavg"

    def begin(self, arrays: Arrays) -> MeanOfChanges:
        """A new round that starts from these global arrays."""
        return MeanOfChanges(arrays)


class MeanOfChanges:
    """A running sum in float64, so that the order of arrival does not show in float32."""

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays
        self._sum = {name: torch.zeros_like(a, dtype=torch.float64) for name, a in arrays.items()}
        self._count = 0

    def add(self, delta: Arrays) -> None:
        """Take in one hospital's change."""
        for name, total in self._sum.items():
            total += delta[name]
        self._count += 1

    def finish(self) -> dict[str, Tensor]:
        """Global arrays plus the mean change.

        Raises:
            ValueError: Nobody sent anything.
        """
        if not self._count:
            raise ValueError("no update to aggregate")
        return {
            name: (array.double() + self._sum[name] / self._count).float()
            for name, array in self._arrays.items()
        }
