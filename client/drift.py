"""What keeps a hospital's steps near everybody's: FedProx's pull and SCAFFOLD's correction.

Both are added to a gradient after the noise. They look at what the coordinator sent and at the
values now, which under noised steps are noised themselves: post-processing, which costs no privacy.
Added before the clip they would take room from the data's part and gain nothing.

Sources: Li et al. (2020), "Federated optimization in heterogeneous networks", equation 2;
Karimireddy et al. (2020), "SCAFFOLD", algorithm 1, line 10. Knows nothing of data or noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from wardround.client.trainable import Trainable

Arrays = Mapping[str, Tensor]


@dataclass(frozen=True)
class Drift:
    """Corrects gradients against a hospital's drift.

    Attributes:
        trainable: Where the values now are.
        start: The values the round started from.
        proximal_mu: The pull back to them, a unit of distance.
        corrections: What the coordinator has added to the gradients of every step, by array.
    """

    trainable: Trainable
    start: Arrays
    proximal_mu: float
    corrections: Arrays

    def correct(self, gradient: Arrays) -> dict[str, Tensor]:
        """``gradient + correction + proximal_mu (values - start)``, for the arrays that move."""
        corrected = {
            name: array + self.corrections[name].to(array) if name in self.corrections else array
            for name, array in gradient.items()
        }
        if self.proximal_mu:
            for name, array in corrected.items():
                away = self.trainable.parameters[name].detach() - self.start[name].to(
                    self.trainable.parameters[name]
                )
                corrected[name] = array + self.proximal_mu * away.to(array)
        return corrected
