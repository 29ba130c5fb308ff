"""A unit spread over several micro-batches: its parts are added up before it is clipped.

Clipping each part by itself would let a patient with many records count several times. Knows
nothing of models; needs memory for one gradient a unit until the sum is closed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class UnitAccumulator:
    """Adds up parts of units' gradients; hands over whole units.

    Privacy: ``close`` returns one contribution a unit, which is what may be clipped. The losses of
    a unit's parts must add up to the loss of the unit.
    """

    def __init__(self, units: int) -> None:
        if units < 0:
            raise ValueError(f"units is {units}; it must be 0 or more")
        self._units = units
        self._held: dict[str, Tensor] = {}

    def add(self, per_unit: Mapping[str, Tensor], places: Sequence[int]) -> None:
        """Add one micro-batch.

        Args:
            per_unit: What ``Engine.gradients`` returned for it.
            places: For each of its units, the place in ``[0, units)`` it has in the whole step.

        Raises:
            ValueError: A place is out of range or named twice, or names differ from before.
        """
        if len(set(places)) != len(places) or any(not 0 <= p < self._units for p in places):
            raise ValueError(f"places must be different numbers in [0, {self._units})")
        if self._held and per_unit.keys() != self._held.keys():
            raise ValueError("micro-batches differ in their parameters")
        for name, rows in per_unit.items():
            if len(rows) != len(places):
                raise ValueError(f"{name}: {len(rows)} contributions for {len(places)} units")
            if name not in self._held:
                self._held[name] = rows.new_zeros((self._units, *rows.shape[1:]))
            index = torch.tensor(list(places), dtype=torch.int64, device=rows.device)
            self._held[name].index_add_(0, index, rows)

    def close(self) -> dict[str, Tensor]:
        """The units' whole gradients, by wire name, shape ``(units, *shape)``; empties itself."""
        held, self._held = self._held, {}
        return held
