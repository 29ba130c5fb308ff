"""FedAvg on LoRA factors: the plain mean of the hospitals' changes, each counting the same.

Averaging A and B apart is not the average of the products B·A; the difference is the covariance of
the factors over hospitals. Works on arrays of any kind. Source: McMahan et al. (2017), algorithm
1; Liu et al. (2023), "DP-LoRA", algorithm 1, with rho_k = 1/K.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from wardround.strategies.averaging import Averaging


@dataclass(frozen=True)
class FedAvg(Averaging):
    """The mean of all changes, added to the global arrays."""

    name: ClassVar[str] = "fedavg"
