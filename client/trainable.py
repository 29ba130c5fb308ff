"""What trains and therefore what leaves: a model, the parameters inside it that move, by wire name.

Knows nothing of tasks or privacy. Wire names of LoRA factors are PEFT's own state-dict keys, so an
adapter written from them loads with ``PeftModel.from_pretrained``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wardround.privacy.errors import BadMessage
from wardround.strategies.base import CONTROL


@dataclass(frozen=True)
class Trainable:
    """A model and its trainable parameters.

    Attributes:
        model: The module whose forward pass the task calls.
        parameters: Wire name to parameter, in a fixed order; exactly those with ``requires_grad``.
        detach: Gives the shared base back as it was before anything was attached to it.
    """

    model: nn.Module
    parameters: Mapping[str, nn.Parameter]
    detach: Callable[[], object] = lambda: None

    def __post_init__(self) -> None:
        wanted = {id(p) for p in self.model.parameters() if p.requires_grad}
        named = {id(p) for p in self.parameters.values()}
        if wanted != named:
            raise ValueError("a parameter requires a gradient but has no wire name, or the reverse")

    @property
    def shapes(self) -> dict[str, torch.Size]:
        """Shape of each trainable parameter."""
        return {name: parameter.shape for name, parameter in self.parameters.items()}

    def read(self) -> dict[str, Tensor]:
        """A float32 copy of the trainable values on the CPU."""
        return {
            name: parameter.detach().to("cpu", torch.float32, copy=True)
            for name, parameter in self.parameters.items()
        }

    def require(self, names: Collection[str]) -> None:
        """Raise ``BadMessage`` unless these are names of trainable parameters, one at least."""
        odd = sorted(set(names) - self.parameters.keys())
        if odd or not names:
            raise BadMessage(f"array {odd[0]!r} does not train" if odd else "no array trains")

    @contextmanager
    def only(self, names: Collection[str]) -> Iterator[Trainable]:
        """Inside, nothing else requires a gradient; what trains then."""
        self.require(names)
        frozen = [p for name, p in self.parameters.items() if name not in names]
        try:
            for parameter in frozen:
                parameter.requires_grad_(False)
            yield Trainable(self.model, {n: p for n, p in self.parameters.items() if n in names})
        finally:
            for parameter in frozen:
                parameter.requires_grad_(True)

    @torch.no_grad()
    def write(self, arrays: Mapping[str, Tensor]) -> None:
        """Set all trainable values.

        Raises:
            BadMessage: A name is missing, unknown, of another shape or not finite; nothing is set.
        """
        check_arrays(arrays, self.shapes)
        for name, parameter in self.parameters.items():
            parameter.copy_(arrays[name])


def check_arrays(arrays: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> None:
    """Refuse arrays whose names, shapes or values are not those expected."""
    if arrays.keys() != shapes.keys():
        odd = sorted(arrays.keys() ^ shapes.keys())[0]
        state = "missing" if odd in shapes else "unknown"
        raise BadMessage(f"array {odd!r} is {state}")
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise BadMessage(
                f"array {name!r} has shape {tuple(arrays[name].shape)}; expected {tuple(shape)}"
            )
        if not bool(torch.isfinite(arrays[name]).all()):
            raise BadMessage(f"array {name!r} holds a value that is not finite")


def split_corrections(
    sent: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Values to start from, and what is to be added to gradients, both by wire name."""
    values = {name: array for name, array in sent.items() if not name.startswith(CONTROL)}
    controls = {name: array for name, array in sent.items() if name.startswith(CONTROL)}
    return values, {name.removeprefix(CONTROL): array for name, array in controls.items()}


def check_corrections(corrections: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> None:
    """Refuse a correction for what does not train, of another shape, or not finite."""
    check_arrays(corrections, {n: shape for n, shape in shapes.items() if n in corrections})
