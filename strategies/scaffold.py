"""SCAFFOLD: each hospital's steps are corrected by how its gradients differ from everybody's.

In every local step a hospital subtracts its control (its own mean gradient of its last round) and
adds the mean control of all. By the paper's option II the new control is ``c_k - c - change /
(steps * learning rate)``: a fixed affine function of the change that leaves the hospital anyway. So
control and change are one vector with one clip and one noise, nothing more is sent, and the round
is charged as any other; the coordinator works the controls out and keeps them. Sent apart, a
control would be a second release of the same data: twice the noise variance for both, or twice the
charge.

Controls carry the noise of the change they were read off. A malicious hospital writes into the mean
control, so SCAFFOLD is refused beside robust rules. Sources: Karimireddy et al. (2020), "SCAFFOLD",
algorithm 1; Noble, Bellet and Dieuleveut (2022) for controls from noised gradients.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wardround.strategies.base import CONTROL, SERVER, Arrays

CONTROLS = f"{SERVER}control/"  # every hospital's control, by its name and that of the array


@dataclass(frozen=True)
class Scaffold:
    """Works controls out of changes.

    Attributes:
        hospitals: How many take part in the study; who never answered has control zero.
        reach: Steps a round times learning rate: how far a gradient of 1 moves a number.
    """

    hospitals: int
    reach: float

    def __post_init__(self) -> None:
        if not self.hospitals >= 1:
            raise ValueError(f"hospitals is {self.hospitals}; it must be 1 or more")
        if not 0 < self.reach < float("inf"):
            raise ValueError(f"reach is {self.reach}; it must be greater than 0")

    def corrections(self, state: Arrays, hospital: str) -> dict[str, Tensor]:
        """What is added to this hospital's gradients, ``c - c_k``, under names for the wire.

        Returns:
            float32 arrays called ``control/<array>``; nothing before anybody has answered.
        """
        total: dict[str, Tensor] = {}
        own: dict[str, Tensor] = {}
        for name, array in sorted(state.items()):
            if name.startswith(CONTROLS):
                owner, _, what = name.removeprefix(CONTROLS).partition("/")
                total[what] = total.get(what, torch.zeros((), dtype=torch.float64)) + array
                if owner == hospital:
                    own[what] = array.double()
        return {
            CONTROL + what: (array / self.hospitals - own.get(what, 0.0)).float()
            for what, array in total.items()
        }

    def learn(self, state: Arrays, hospital: str, change: Arrays) -> dict[str, Tensor]:
        """This hospital's new control as an entry of the next state.

        Args:
            state: What the hospital's brief was made from.
            hospital: Who sent the change.
            change: As it came back, noised.
        """
        corrections = self.corrections(state, hospital)
        zero = torch.zeros(())
        return {
            f"{CONTROLS}{hospital}/{name}": (
                -array.double() / self.reach - corrections.get(CONTROL + name, zero)
            ).float()
            for name, array in change.items()
        }
