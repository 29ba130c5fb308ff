"""Clipping: one unit's contribution, all its factors together, never longer than ``clip_norm``.

The norm is taken jointly over all trainable factors (A and B of every layer), because two norms
would cost a factor of sqrt(2). Norms and sums are added up in float64: torch's own float32 norm of
four million numbers is off by up to 2e-3, and the bound would be broken by as much. All factors lie
side by side in one matrix with a row a unit, of which a cache's worth of columns is looked at once,
so that many small factors cost what one large one does and no copy of the whole is ever made.

Sources: Abadi et al. (2016), "Deep learning with differential privacy", algorithm 1, line "clip
gradient"; Bu et al. (2023), "Automatic clipping", equation 4.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import InitVar, dataclass
from enum import StrEnum

import torch
from torch import Tensor

from wardround.privacy._seal import SEAL, require_seal
from wardround.privacy.units import Adjacency, Unit

_BLOCK = 2**18  # numbers brought to float64 at once: small enough for a core's cache
_JOINED = 2**15  # up to so many, joining factors is cheaper than looking at each
_GPU_BLOCK = 2**24
_MARGIN = 1e-5  # covers what float64 rounding adds over a sum of up to 1e5 units (1e-6)
_AUTOMATIC_DAMPING = 0.01


class ClipRule(StrEnum):
    """How a contribution is brought to its bound."""

    FLAT = "flat"  # longer ones are cut to clip_norm, shorter ones stay
    AUTOMATIC = "automatic"  # all are scaled to nearly clip_norm, so it needs no tuning


@dataclass(frozen=True, eq=False)
class Clipped:
    """A sum over units which moves by at most ``bound`` when one unit comes or goes.

    Attributes:
        value: The summed contributions, float64, by parameter name.
        bound: In joint L2 norm; infinite where clipping was off (public data only).
        unit: What one contribution stands for.
        within: Over all units, +1/2 for each that was short enough and -1/2 for each that was
            clipped; moves by 1/2 when one unit comes or goes.
    """

    value: Mapping[str, Tensor]
    bound: float
    unit: Unit
    within: float = 0.0
    seal: InitVar[object] = None

    def __post_init__(self, seal: object) -> None:
        require_seal(seal, "Clipped")

    def sensitivity(self, adjacency: Adjacency) -> float:
        """How far the sum can move, in joint L2 norm, between neighbouring data sets."""
        return self.bound * adjacency.displacement

    def within_sum(self) -> Clipped:
        """``within`` as a sum of its own, to be noised; for adaptive clipping."""
        value = {"within": torch.tensor([self.within], dtype=torch.float64)}
        return Clipped(value, 0.5, self.unit, seal=SEAL)


class ClippedSum:
    """Adds up clipped contributions chunk by chunk; a unit can be added once only.

    Attributes:
        dropped: How many contributions were not finite and count as zero; stays at home.

    Privacy: the sum of all chunks moves by at most ``clip_norm`` when one unit is added or removed,
    because a unit named twice is refused instead of being counted twice.
    """

    def __init__(
        self,
        shapes: Mapping[str, torch.Size],
        clip_norm: float,
        unit: Unit,
        rule: ClipRule = ClipRule.FLAT,
    ) -> None:
        if not clip_norm > 0:
            raise ValueError(f"clip_norm is {clip_norm}; it must be greater than 0")
        self._clip_norm = clip_norm
        self._unit = unit
        self._rule = rule
        self._sum = {
            name: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes.items()
        }
        self._within = 0.0
        self.dropped = 0
        self._seen: set[int] = set()

    def add(self, per_unit: Mapping[str, Tensor], members: Iterable[int]) -> None:
        """Clip each unit's contribution and add it.

        Args:
            per_unit: By parameter name, shape ``(units, *shape)``: one contribution a unit.
            members: The units' positions in the data set, in the order of the first axis.

        Raises:
            ValueError: A unit was added before, or a name or shape is not as announced.

        Privacy: a contribution that is not finite counts as zero. To stop instead would tell the
        outside something about that one unit.
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
        laid = [_lay_flat(name, rows) for name, rows in per_unit.items()]
        norms = _norms(laid)
        sound = torch.isfinite(norms)
        kept = None if bool(sound.all()) else sound
        factors = _factors(norms[sound], self._clip_norm, self._rule)
        for part, total in _weighted_sums(laid, factors, kept):
            self._sum[part.name] = self._sum[part.name].to(total.device) + part.restore(total)
        self._within += float((norms <= self._clip_norm).sum()) - len(units) / 2
        self.dropped += int((~sound).sum())
        self._seen.update(units)

    def close(self) -> Clipped:
        """The clipped sum; an empty one is all zeros, and noise makes it a proper release."""
        return Clipped(self._sum, self._clip_norm, self._unit, self._within, seal=SEAL)


def clip_update(update: Mapping[str, Tensor], clip_norm: float) -> Clipped:
    """A whole round's change as the contribution of one site, no longer than ``clip_norm``.

    Privacy: the unit is the site: present with its change, or absent with a change of zero.
    """
    total = ClippedSum(
        {name: change.shape for name, change in update.items()}, clip_norm, Unit.SITE
    )
    total.add({name: change[None] for name, change in update.items()}, [0])
    return total.close()


def unit_norms(per_unit: Mapping[str, Tensor]) -> Tensor:
    """Joint L2 norm of each unit's contribution, shape ``(units,)``, float64."""
    return _norms([_lay_flat(name, rows) for name, rows in per_unit.items()])


def clip_factors(per_unit: Mapping[str, Tensor], clip_norm: float) -> Tensor:
    """The factor in [0, 1] that brings each unit's joint norm down to ``clip_norm``, float64.

    It is 0 for a norm that is not finite; the contribution itself must then be left out, because
    0 times infinity is not a number.
    """
    norms = unit_norms(per_unit)
    sound = torch.isfinite(norms)
    factors = _factors(norms.where(sound, torch.ones_like(norms)), clip_norm, ClipRule.FLAT)
    return factors.where(sound, torch.zeros_like(factors))


def _factors(norms: Tensor, clip_norm: float, rule: ClipRule) -> Tensor:
    """Each unit's factor, from its finite norm."""
    if math.isinf(clip_norm):
        return torch.ones_like(norms)
    safe = clip_norm * (1 - _MARGIN)
    if rule is ClipRule.AUTOMATIC:
        return safe / (norms + _AUTOMATIC_DAMPING)
    return (safe / norms.clamp(min=torch.finfo(norms.dtype).tiny)).clamp(max=1.0)


@dataclass(frozen=True, eq=False)
class _Flat:
    """One factor's contributions as a matrix.

    Attributes:
        name: The factor's.
        matrix: Shape ``(units, numbers)``, in the order the numbers have in memory: engines leave
            some factors transposed, and flattened in their own order those need no copy.
        shape: Of one contribution, in that order.
        order: Which axis of ``shape`` each axis of the factor is.
    """

    name: str
    matrix: Tensor
    shape: tuple[int, ...]
    order: tuple[int, ...]

    def restore(self, numbers: Tensor) -> Tensor:
        """One row of the matrix as an array of the factor's own shape."""
        return numbers.view(self.shape).permute(self.order)


def _lay_flat(name: str, rows: Tensor) -> _Flat:
    """``rows``, shape ``(units, *shape)``, without a copy where its memory is dense."""
    axes = list(range(1, rows.dim()))
    if not rows.is_contiguous():
        axes.sort(key=rows.stride, reverse=True)
        rows = rows.permute(0, *axes)
    order = tuple(axes.index(axis) for axis in range(1, rows.dim()))
    return _Flat(name, rows.reshape(len(rows), -1), tuple(rows.shape[1:]), order)


def _norms(laid: Sequence[_Flat]) -> Tensor:
    """Joint norm of each row over all matrices, float64, on the CPU."""
    parts = [torch.linalg.vector_norm(block, dim=1).cpu() for block in _blocks(laid)]
    joint: Tensor = torch.linalg.vector_norm(torch.stack(parts), dim=0)
    return joint


def _weighted_sums(
    laid: Sequence[_Flat], factors: Tensor, kept: Tensor | None
) -> Iterator[tuple[_Flat, Tensor]]:
    """For each matrix the sum of its rows, each times its factor, float64.

    Args:
        laid: The matrices.
        factors: One a row that counts.
        kept: Which rows count; None for all.
    """
    for device in dict.fromkeys(part.matrix.device for part in laid):
        here = [part for part in laid if part.matrix.device == device]
        weights = factors.to(device)
        rows = slice(None) if kept is None else kept.to(device)
        total = torch.cat([weights @ block[rows] for block in _blocks(here)])
        sizes = [part.matrix.shape[1] for part in here]
        yield from zip(here, torch.split(total, sizes), strict=True)


def _blocks(laid: Sequence[_Flat]) -> Iterator[Tensor]:
    """The matrices side by side, some columns at a time, in float64; at least one block.

    A block lies on one device; a long matrix is cut, short ones are joined.
    """
    held: list[Tensor] = []
    filled = 0
    for part in laid:
        matrix = part.matrix
        on_cpu = matrix.device.type == "cpu"
        width = max(1, (_BLOCK if on_cpu else _GPU_BLOCK) // max(1, len(matrix)))
        for piece in torch.split(matrix, width, dim=1):
            full = filled + piece.numel() > (_JOINED if on_cpu else _GPU_BLOCK)
            if held and (full or held[0].device != piece.device):
                yield _joined(held)
                held, filled = [], 0
            held.append(piece)
            filled += piece.numel()
    yield _joined(held)


def _joined(pieces: Sequence[Tensor]) -> Tensor:
    """Columns side by side, float64."""
    return (pieces[0] if len(pieces) == 1 else torch.cat(list(pieces), dim=1)).double()
