"""Clipping: one unit's contribution, all its factors together, never longer than ``clip_norm``.

Source: Abadi et al. (2016), "Deep learning with differential privacy", algorithm 1, line "clip
gradient"; the norm is taken jointly over all trainable factors (A and B of every layer), because
two norms would cost a factor of sqrt(2) (DP-LoRA, Liu et al. 2023, clips the factors apart).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import InitVar, dataclass

import torch
from torch import Tensor

from wardround.privacy._seal import SEAL, require_seal
from wardround.privacy.units import Adjacency, Unit


@dataclass(frozen=True)
class Clipped:
    """A sum over units in which no single unit counts for more than ``bound`` in joint L2 norm.

    Attributes:
        value: The summed contributions, float32, by parameter name.
        bound: The clip norm; infinite where clipping was off (public data only).
        unit: What one contribution stands for.
    """

    value: Mapping[str, Tensor]
    bound: float
    unit: Unit
    seal: InitVar[object] = None

    def __post_init__(self, seal: object) -> None:
        require_seal(seal, "Clipped")

    def sensitivity(self, adjacency: Adjacency) -> float:
        """How far the sum can move, in joint L2 norm, between neighbouring data sets."""
        return self.bound * adjacency.displacement


class ClippedSum:
    """Adds up clipped contributions chunk by chunk; a unit can be added once only.

    Privacy: the sum of all chunks moves by at most ``clip_norm`` when one unit is added or removed,
    because a unit named twice is refused instead of being counted twice.
    """

    def __init__(self, shapes: Mapping[str, torch.Size], clip_norm: float, unit: Unit) -> None:
        if not clip_norm > 0:
            raise ValueError(f"clip_norm is {clip_norm}; it must be greater than 0")
        self._clip_norm = clip_norm
        self._unit = unit
        self._sum = {name: torch.zeros(shape) for name, shape in shapes.items()}
        self._seen: set[int] = set()

    def add(self, per_unit: Mapping[str, Tensor], members: Iterable[int]) -> None:
        """Clip each unit's contribution and add it.

        Args:
            per_unit: By parameter name, shape ``(units, *shape)``: one contribution a unit.
            members: The units' positions in the data set, in the order of the first axis.

        Raises:
            ValueError: A unit was added before, a name is missing or a value is not finite.
        """
        units = list(members)
        if len(set(units)) != len(units) or not self._seen.isdisjoint(units):
            raise ValueError("a unit may contribute once to a clipped sum")
        if per_unit.keys() != self._sum.keys():
            odd = sorted(per_unit.keys() ^ self._sum.keys())
            raise ValueError(f"contributions and parameters differ in {odd[0]!r}")
        for name, rows in per_unit.items():
            if rows.shape != (len(units), *self._sum[name].shape):
                raise ValueError(f"{name}: shape {tuple(rows.shape)} for {len(units)} units")
        if not units:
            return
        scale = clip_factors(per_unit, self._clip_norm)
        for name, rows in per_unit.items():
            flat = rows.reshape(len(units), -1).float()
            self._sum[name] += (scale @ flat).view_as(self._sum[name]).to(self._sum[name].device)
        self._seen.update(units)

    def close(self) -> Clipped:
        """The clipped sum; an empty one is all zeros, and noise makes it a proper release."""
        return Clipped(self._sum, self._clip_norm, self._unit, seal=SEAL)


def unit_norms(per_unit: Mapping[str, Tensor]) -> Tensor:
    """Joint L2 norm of each unit's contribution, shape ``(units,)``, float32."""
    squares = [
        torch.linalg.vector_norm(rows.flatten(1).float(), dim=1).square()
        for rows in per_unit.values()
    ]
    return torch.stack(squares).sum(0).sqrt()


def clip_factors(per_unit: Mapping[str, Tensor], clip_norm: float) -> Tensor:
    """The factor in [0, 1] that brings each unit's joint norm down to ``clip_norm``.

    Raises:
        ValueError: A norm is not finite: such a value would leak through the scaling.
    """
    norms = unit_norms(per_unit)
    if not bool(torch.isfinite(norms).all()):
        raise ValueError("a per-unit gradient is not finite")
    if math.isinf(clip_norm):
        return torch.ones_like(norms)
    # One float32 rounding in norm and product can overshoot by parts in 1e7; stay below the bound.
    safe = clip_norm * (1 - 1e-6)
    return (safe / norms.clamp(min=torch.finfo(norms.dtype).tiny)).clamp(max=1.0)
