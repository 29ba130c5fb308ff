"""What one step costs without a clock: multiplications, bytes written, most bytes alive at once.

Counted by watching every operation PyTorch dispatches, so the numbers are the same on every run
and every machine; they are a cost model, not a speed. Fused attention kernels are not counted on
CPU, for any contender alike.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_aten = torch.ops.aten
_ONTO = (_aten.addmm, _aten.addmm_, _aten.baddbmm, _aten.baddbmm_, _aten.addmv, _aten.addmv_)


@dataclass(frozen=True)
class Cost:
    """One step's work.

    Attributes:
        flops: Floating point operations of all matrix products, two for each multiplication.
        bytes_written: Size of all results of operations that are not mere views.
        peak_bytes: Most bytes alive at once, beyond those alive before the step.
    """

    flops: int
    bytes_written: int
    peak_bytes: int


def measure_cost(step: Callable[[], None]) -> Cost:
    """The cost of one call of ``step``."""
    with _Watch() as watch:
        step()
    return Cost(watch.flops, watch.written, watch.peak)


class _Watch(TorchDispatchMode):
    """Sees every operation and the memory behind its results."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = self.written = self.peak = 0
        self._alive: dict[int, int] = {}
        self._now = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs = {_storage(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        out = func(*args, **kwargs)
        self.flops += _products(func.overloadpacket, args)
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                fresh = _storage(tensor) not in inputs and self._keep(tensor)
                if fresh or func._schema.is_mutable:
                    self.written += tensor.numel() * tensor.element_size()
        return out

    def _keep(self, tensor: Tensor) -> bool:
        """Count memory seen for the first time until it is freed."""
        storage, key = tensor.untyped_storage(), _storage(tensor)
        if key in self._alive:
            return False
        self._alive[key] = storage.nbytes()
        self._now += storage.nbytes()
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._free, key)
        return True

    def _free(self, key: int) -> None:
        """The storage behind ``key`` is gone."""
        self._now -= self._alive.pop(key, 0)


def _storage(tensor: Tensor) -> int:
    """Identity of the memory behind a tensor."""
    identity: int = tensor.untyped_storage()._cdata
    return identity


def _products(packet: Any, args: Any) -> int:
    """Floating point operations of a matrix product; 0 for any other operation."""
    if packet in (_aten.mm, _aten.bmm, _aten.mv):
        left, right = args[0], args[1]
    elif packet in _ONTO:
        left, right = args[1], args[2]
    else:
        return 0
    columns: int = 1 if right.dim() == 1 else right.shape[-1]
    flops: int = 2 * left.numel() * columns
    return flops
