"""Full-rank changes beside frozen linear layers: what fine-tuning and closed-form editors train.

A targeted layer becomes itself plus a bias-free linear layer that starts at zero, so the shared
base is never written to, its answers can be had back at any time, and the engines see an ordinary
dense layer. PEFT can load the result: a change D with ``out`` rows is LoRA of rank ``out`` with
B = 1 and A = D, exactly. Knows nothing of data or privacy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wardround.client.lora import WIRE_PREFIX, AdapterConfig, attach_lora, find_linear, save_adapter
from wardround.client.trainable import Trainable, check_arrays

_NAME = "delta"


class Shifted(nn.Module):
    """A frozen layer and its change, which can be switched off."""

    def __init__(self, base: nn.Module, out_features: int, in_features: int) -> None:
        super().__init__()
        weight: Any = base.weight
        self.base_layer = base
        self.delta = nn.Linear(
            in_features, out_features, bias=False, device=weight.device, dtype=weight.dtype
        )
        nn.init.zeros_(self.delta.weight)
        self.active = True

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output, with its change unless that is switched off."""
        kept: Tensor = self.base_layer(x)
        return kept + self.delta(x) if self.active else kept


def attach_deltas(model: nn.Module, config: AdapterConfig) -> Trainable:
    """A change for each targeted layer, until ``Trainable.detach``; everything else stays frozen.

    Of ``config`` only ``targets`` matters.

    Raises:
        BadInput: A target matches no linear module.
    """
    if any(isinstance(module, Shifted) for module in model.modules()):
        raise ValueError("the model already carries changes; detach them first")
    parameters: dict[str, nn.Parameter] = {}
    replaced: dict[str, nn.Module] = {}
    for path in find_linear(model, config.targets):
        base = model.get_submodule(path)
        with torch.random.fork_rng(devices=[]):
            shifted = Shifted(base, *weight_shape(base))
        replaced[path] = base
        model.set_submodule(path, shifted)
        weight: Any = shifted.delta.weight
        parameters[f"{path}.{_NAME}.weight"] = weight

    def detach() -> nn.Module:
        for path, base in replaced.items():
            model.set_submodule(path, base)
        return model

    return Trainable(model, parameters, detach=detach)


def weight_shape(layer: nn.Module) -> tuple[int, int]:
    """``(out_features, in_features)`` of a linear layer, GPT-2's transposed one too."""
    weight: Any = layer.weight
    rows, columns = weight.shape
    return (rows, columns) if isinstance(layer, nn.Linear) else (columns, rows)


@contextmanager
def without_deltas(model: nn.Module) -> Iterator[None]:
    """Inside, changed layers answer as the base does."""
    shifted = [module for module in model.modules() if isinstance(module, Shifted)]
    before = [module.active for module in shifted]
    for module in shifted:
        module.active = False
    try:
        yield
    finally:
        for module, active in zip(shifted, before, strict=True):
            module.active = active


def save_deltas(
    trainable: Trainable, arrays: Mapping[str, Tensor], base_name: str, folder: Path, note: str
) -> None:
    """Write changes as a LoRA adapter of full rank, whole or not at all.

    Args:
        trainable: What ``attach_deltas`` made.
        arrays: The changes by wire name.
        base_name: Name or folder of the base.
        folder: Made, or replaced at the very end.
        note: What a reader of the model card must know first.
    """
    check_arrays(arrays, trainable.shapes)
    model = trainable.model
    changes = {name.removesuffix(f".{_NAME}.weight"): value for name, value in arrays.items()}
    shifted: dict[str, Any] = {path: model.get_submodule(path) for path in changes}
    rank = max(len(delta) for delta in changes.values())
    config = AdapterConfig(tuple(changes), rank, float(rank))
    values: dict[str, Tensor] = {}
    for path, delta in changes.items():
        rows = torch.zeros(rank, delta.shape[1])
        rows[: len(delta)] = delta
        values[f"{WIRE_PREFIX}{path}.lora_A.weight"] = rows
        values[f"{WIRE_PREFIX}{path}.lora_B.weight"] = torch.eye(len(delta), rank)
    for path, module in shifted.items():
        model.set_submodule(path, module.base_layer)
    lora = attach_lora(model, config, torch.Generator())
    try:
        save_adapter(lora, config, values, base_name, folder, note)
    finally:
        lora.detach()
        for path, module in shifted.items():
            model.set_submodule(path, module)
