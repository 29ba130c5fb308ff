"""The Opacus engine: per-unit gradients from Opacus' hooks, for modules the fused engine lacks.

Opacus (Yousefpour et al. 2021, "Opacus: user-friendly differential privacy library in PyTorch")
computes one gradient a row beside the summed one; layers without a sampler of their own go through
``torch.func``. The hooks sit on the model itself, so wire names and ``state_dict`` stay as they
were. Two silences of the hooks are made loud here: a gradient that reached a parameter without
being caught, and rows that do not add up to what autograd has. Knows nothing of clipping or noise.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, ClassVar, Self

import torch
from opacus.grad_sample import GradSampleHooks
from torch import Tensor, nn

from wardround.client.engine.base import (
    UnsupportedTrainable,
    check_losses,
    gradient_dtype,
    no_units,
    refuse_coupling,
    trainable_of,
)
from wardround.client.engine.per_row import PerRow
from wardround.client.engine.sink import Groups, group_rows, sum_rows
from wardround.client.trainable import Trainable

_NO_INPUT_GRADIENT = "Full backward hook is firing when gradients are computed"


class OpacusEngine:
    """Per-unit gradients by forward and backward hooks; slower, and knows more kinds of layers.

    Privacy: exact per-unit gradients of losses that do not couple units, or an error.
    """

    name: ClassVar[str] = "opacus"

    def __init__(self, trainable: Trainable) -> None:
        self._trainable = trainable
        self._hooks: Any = None
        for path, module in trainable.model.named_modules():
            if trainable_of(module) and next(module.buffers(), None) is not None:
                raise UnsupportedTrainable(f"{path} trains and has buffers, which Opacus refuses")
            if isinstance(module, PerRow):
                raise UnsupportedTrainable(
                    f"{path} is called with a count, which Opacus cannot keep"
                )

    def __enter__(self) -> Self:
        """Register the hooks.

        Raises:
            RuntimeError: Another engine is attached.
            UnsupportedTrainable: The model couples the rows of a batch, or Opacus refuses it.
        """
        model = self._trainable.model
        refuse_coupling(model)
        if hasattr(model, "autograd_grad_sample_hooks"):
            raise RuntimeError("another engine is attached to this model")
        try:
            self._hooks = _Hooks(model, loss_reduction="sum")
        except NotImplementedError as error:
            raise UnsupportedTrainable(f"Opacus refuses this model: {error}") from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the hooks and what they left on modules and parameters."""
        self._forget()
        self._hooks.cleanup()
        self._hooks = None

    def gradients(
        self, losses: Callable[[], Tensor], unit_of_row: Tensor, units: int
    ) -> dict[str, Tensor]:
        """Per-unit gradients; see ``Engine.gradients``.

        Raises:
            ValueError: Losses or rows of another number than the batch says.
            RuntimeError: Opacus missed a gradient, as it does under checkpointing without
                ``use_reentrant=True``, or its rows do not add up.
        """
        if units == 0:
            return no_units(self._trainable)
        groups = group_rows(unit_of_row, units)
        parameters = self._trainable.parameters
        kept = {name: p.grad for name, p in parameters.items()}
        try:
            self._forget()
            for p in parameters.values():
                p.grad = None
            with torch.enable_grad(), _quiet():
                check_losses(losses(), units).sum().backward()  # type: ignore[no-untyped-call]
            return {name: _per_unit(name, p, groups) for name, p in parameters.items()}
        finally:
            self._forget()
            for name, p in parameters.items():
                p.grad = kept[name]

    def _forget(self) -> None:
        """Drop what a pass left behind; a forward pass without a backward one counts as well."""
        for module in self._trainable.model.modules():
            for left in ("activations", "max_batch_len"):
                vars(module).pop(left, None)
        for parameter in self._trainable.parameters.values():
            vars(parameter).pop("_current_grad_sample", None)
            vars(parameter).update(grad_sample=None, _forward_counter=0)


class _Hooks(GradSampleHooks):  # type: ignore[misc]
    """Opacus' hooks, listening in evaluation mode too: adapters train with dropout switched off."""

    def capture_activations_hook(
        self, module: nn.Module, forward_input: list[Tensor], _forward_output: Tensor
    ) -> None:
        """Opacus looks at nothing but the module's own flag, so the flag is set for the look."""
        training, module.training = module.training, True
        try:
            super().capture_activations_hook(module, forward_input, _forward_output)
        finally:
            module.training = training


def _per_unit(name: str, parameter: Any, groups: Groups) -> Tensor:
    """What Opacus found for one parameter, by unit, once it is known to be all there is."""
    total, per_row = parameter.grad, parameter.grad_sample
    dtype = gradient_dtype(parameter)
    if total is None:
        return torch.zeros((groups.units, *parameter.shape), dtype=dtype, device=parameter.device)
    if not isinstance(per_row, Tensor):
        raise RuntimeError(
            f"Opacus missed the gradient of {name}; checkpointing needs use_reentrant=True"
        )
    if len(per_row) != groups.rows:
        raise ValueError(
            f"{name}: its layer saw {len(per_row)} rows and unit_of_row names {groups.rows}"
        )
    per_row = per_row.to(dtype)
    # Rounding of a sum is bounded by the sum of sizes; half the digits is far above that.
    size = torch.linalg.vector_norm(per_row.flatten(1), dim=1).sum()
    gap = torch.linalg.vector_norm(per_row.sum(0) - total.to(dtype))
    if bool(gap > torch.finfo(parameter.dtype).eps ** 0.5 * size):
        raise RuntimeError(f"the rows Opacus found for {name} do not add up to its gradient")
    return sum_rows(per_row, groups)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's remark that the first layer's input needs no gradient."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", _NO_INPUT_GRADIENT, UserWarning)
        yield
