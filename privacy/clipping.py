"""Clipping: one unit's contribution, all its factors together, never longer than ``clip_norm``.

The norm is taken jointly over all trainable factors (A and B of every layer), because two norms
would cost a factor of sqrt(2). Sums are added up in float64, a cache's worth of each factor at a
time, so that no copy of the whole is ever made. Norms are too, in the end: torch's own float32 norm
of four million numbers is off by up to 2e-3, and the bound would be broken by as much. But the norm
of 64 of them is off by 65 roundings of 2**-24 at the very most, half of which reach the root: 2e-6,
in whatever order they are added, and the bound has room for that. So runs of 64 numbers are
measured in float32, which reads everything once and writes little, and their norms in float64.

Sources: Abadi et al. (2016), "Deep learning with differential privacy", algorithm 1, line "clip
gradient"; Bu et al. (2023), "Automatic clipping", equation 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, replace
from enum import StrEnum

import torch
from torch import Tensor

from wardround.privacy._seal import SEAL, require_seal
from wardround.privacy.units import Adjacency, Unit

# In here tensors say how long they are by ``shape``: their ``len`` takes longer than a small sum.
_BLOCK = 2**18  # numbers brought to float64 at once: small enough for a core's cache
_GPU_BLOCK = 2**24
_RUN = 64  # numbers whose norm is taken in float32
_SHORTEST_RUN = 8  # below, there would be too many of them
_FAINT = 1e-9  # squares of float32 numbers lose 3e-15 of a norm at most, where they underflow
_MARGIN = 1e-5  # covers norms of runs (2e-6) and float64 sums of up to 1e5 units (1e-6)
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
        losses: The same units' losses, each cut to a bound of its own and added up, where they are
            to be released too.
    """

    value: Mapping[str, Tensor]
    bound: float
    unit: Unit
    within: float = 0.0
    losses: Clipped | None = None
    seal: InitVar[object] = None

    def __post_init__(self, seal: object) -> None:
        require_seal(seal, "Clipped")

    def sensitivity(self, adjacency: Adjacency) -> float:
        """How far the sum can move, in joint L2 norm, between neighbouring data sets."""
        return self.bound * adjacency.displacement

    def beside(self, losses: Clipped) -> Clipped:
        """The same sum with the sum of losses of the same units beside it."""
        return Clipped(self.value, self.bound, self.unit, self.within, losses, seal=SEAL)

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
        self._shapes = dict(shapes)
        self._sum: dict[str, _Flat] = {}
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
        if per_unit.keys() != self._shapes.keys():
            odd = sorted(per_unit.keys() ^ self._shapes.keys())
            raise ValueError(f"contributions and parameters differ in {odd[0]!r}")
        for name, rows in per_unit.items():
            if rows.shape != (len(units), *self._shapes[name]):
                raise ValueError(f"{name}: shape {tuple(rows.shape)} for {len(units)} units")
        if not units:
            return
        laid = {name: self._lay(name, rows) for name, rows in per_unit.items()}
        norms = _norms_of_runs([part.numbers for part in laid.values()])
        sound = torch.isfinite(norms)
        kept = None if bool(sound.all()) else sound
        factors = _factors(norms[sound], self._clip_norm, self._rule)
        self._sum = self._sum or _zeros_for(laid)
        for name, part in laid.items():
            _add_weighted_rows(self._sum[name].numbers, part.numbers, factors, kept)
        self._within += float((norms <= self._clip_norm).sum()) - len(units) / 2
        self.dropped += int((~sound).sum())
        self._seen.update(units)

    def _lay(self, name: str, rows: Tensor) -> _Flat:
        """``rows`` in the order in which this factor's sum is kept."""
        kept = self._sum.get(name)
        return _lay_flat(rows, None if kept is None else kept.axes)

    def close(self) -> Clipped:
        """The clipped sum; an empty one is all zeros, and noise makes it a proper release."""
        value = {
            name: self._sum[name].restored()
            if name in self._sum
            else torch.zeros(shape, dtype=torch.float64)
            for name, shape in self._shapes.items()
        }
        return Clipped(value, self._clip_norm, self._unit, self._within, seal=SEAL)


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
    return _norms([_lay_flat(rows).numbers for rows in per_unit.values()])


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
    """One factor's contributions, or their sum, as plain rows of numbers.

    Attributes:
        numbers: Shape ``(units, numbers)``, or ``(numbers,)`` of a sum, in the order the numbers
            have in memory: engines leave some factors transposed, and flattened in their own order
            those need no copy.
        shape: Of one array, in that order.
        axes: The array's axes in that order, from 1.
    """

    numbers: Tensor
    shape: tuple[int, ...]
    axes: tuple[int, ...]

    def restored(self) -> Tensor:
        """The sum as an array of the factor's own shape."""
        order = [self.axes.index(axis) for axis in range(1, len(self.axes) + 1)]
        return self.numbers.view(self.shape).permute(order)


def _lay_flat(rows: Tensor, axes: tuple[int, ...] | None = None) -> _Flat:
    """``rows``, shape ``(units, *shape)``, without a copy where its memory is dense.

    Args:
        rows: One contribution a unit.
        axes: The order to lay them in; by default the one they have in memory.
    """
    if axes is None:
        axes = tuple(range(1, rows.dim()))
        if not rows.is_contiguous():
            axes = tuple(sorted(axes, key=rows.stride, reverse=True))
    rows = rows.permute(0, *axes)
    return _Flat(rows.reshape(rows.shape[0], -1), tuple(rows.shape[1:]), axes)


def _norms_of_runs(matrices: Sequence[Tensor]) -> Tensor:
    """As ``_norms``, up to 2e-6 of each, at the price of reading everything once."""
    norms = _joint(matrices, _norms_of_short_runs)
    # Beyond are squares that float32 cannot hold, and what is not finite in the first place.
    return norms if bool(((norms > _FAINT) & torch.isfinite(norms)).all()) else _norms(matrices)


def _norms(matrices: Sequence[Tensor]) -> Tensor:
    """Joint norm of each row over all matrices, float64, on the CPU."""
    return _joint(matrices, _norms_of_blocks)


def _joint(matrices: Sequence[Tensor], parts: Callable[[Tensor], Tensor]) -> Tensor:
    """Joint norm of each row from norms of ``parts`` of it, float64, on the CPU."""
    found: dict[torch.device, list[Tensor]] = {}
    for matrix in matrices:
        found.setdefault(matrix.device, []).append(parts(matrix))
    each = [torch.linalg.vector_norm(torch.cat(p, 1).double(), dim=1).cpu() for p in found.values()]
    joint: Tensor = (
        each[0] if len(each) == 1 else torch.linalg.vector_norm(torch.stack(each), dim=0)
    )
    return joint


def _norms_of_short_runs(matrix: Tensor) -> Tensor:
    """Float32 norms of runs of up to ``_RUN`` numbers; float64 ones where runs do not fit."""
    run = math.gcd(matrix.shape[1], _RUN)
    if matrix.dtype != torch.float32 or run < _SHORTEST_RUN:
        return _norms_of_blocks(matrix)
    runs = matrix.reshape(matrix.shape[0], matrix.shape[1] // run, run)
    norms: Tensor = torch.linalg.vector_norm(runs, dim=2)
    return norms


def _norms_of_blocks(matrix: Tensor) -> Tensor:
    """Float64 norms of as many numbers at a time as may be brought to float64."""
    blocks = _blocks(matrix, matrix.shape[0])
    return torch.stack([torch.linalg.vector_norm(part.double(), dim=1) for part in blocks], dim=1)


def _zeros_for(laid: Mapping[str, _Flat]) -> dict[str, _Flat]:
    """A sum of nothing for each factor, side by side in one piece of memory a device."""
    found: dict[str, _Flat] = {}
    for device in dict.fromkeys(part.numbers.device for part in laid.values()):
        here = {name: part for name, part in laid.items() if part.numbers.device == device}
        sizes = [part.numbers.shape[1] for part in here.values()]
        zeros = torch.zeros(sum(sizes), dtype=torch.float64, device=device)
        for (name, part), numbers in zip(here.items(), torch.split(zeros, sizes), strict=True):
            found[name] = replace(part, numbers=numbers)
    return found


def _add_weighted_rows(total: Tensor, matrix: Tensor, factors: Tensor, kept: Tensor | None) -> None:
    """Add to ``total``, in float64, every row of ``matrix``, each times its factor.

    Args:
        total: Shape ``(numbers,)``, float64; changed in place.
        matrix: Shape ``(rows, numbers)``.
        factors: One a row that counts.
        kept: Which rows count; None for all.
    """
    weights = factors.to(matrix.device)
    rows = None if kept is None else kept.to(matrix.device)
    units = matrix.shape[0]
    for sums, block in zip(_blocks(total, units), _blocks(matrix, units), strict=True):
        sums.addmv_((block if rows is None else block[rows]).double().t(), weights)


def _blocks(numbers: Tensor, rows: int) -> Sequence[Tensor]:
    """Columns, as many at a time as ``rows`` rows of them may be brought to float64."""
    most = _BLOCK if numbers.device.type == "cpu" else _GPU_BLOCK
    width = max(1, most // max(1, rows))
    return (numbers,) if numbers.shape[-1] <= width else torch.split(numbers, width, dim=-1)
