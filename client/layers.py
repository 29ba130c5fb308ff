"""What strategies put into a LoRA layer beside its factors: a product behind, a core between them.

A background is a frozen product that a layer adds to its output as it adds its own B·A; switching
the adapter off switches it off too, so tasks that compare with the untouched base still do. A core
is a square matrix R that makes the layer add B·R·A. Both run PEFT's own forward, so every engine
knows them. Sources: Wang et al. (2024), "FLoRA"; Singhal et al. (2025), "Fed-SB". Knows nothing of
rounds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wardround.privacy.errors import BadMessage
from wardround.strategies.factors import BACKGROUND_A, BACKGROUND_B, CORE, A, B

Pair = tuple[Any, tuple[Tensor, Tensor]]  # a LoRA layer and both factors to put into it

ADAPTER = "default"  # PEFT's name of the adapter that trains
_BEHIND = "background"
_INSTEAD = "instead"


class Fixed(nn.Module):
    """A matrix that multiplies its input and never trains, whatever PEFT thaws."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self, x: Tensor) -> Tensor:
        """The product."""
        return functional.linear(x, self.weight)


@contextmanager
def background(model: nn.Module, arrays: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, the model's LoRA layers add these products too, scaled as their own.

    Args:
        model: An adapted model.
        arrays: Both factors of some of its layers, as ``strategies.factors`` names them.

    Raises:
        BadMessage: A name, shape or value does not fit the model; nothing is changed then.
    """
    pairs = _pairs(model, arrays, BACKGROUND_A, BACKGROUND_B)
    with _beside(pairs, _BEHIND, [ADAPTER, _BEHIND]):
        yield


@contextmanager
def standing_in(model: nn.Module, arrays: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, every LoRA layer adds these factors in place of its own and of any background.

    What trains is not touched, so a forward pass inside may come between one that autograd follows
    and its backward pass.

    Args:
        model: An adapted model.
        arrays: Both factors of all of its layers, by wire name.

    Raises:
        BadMessage: A name, shape or value does not fit the model; nothing is changed then.
    """
    pairs = _pairs(model, arrays, A, B)
    if len(pairs) != sum(_is_lora(module) for module in model.modules()):
        raise BadMessage("the factors that are to stand in leave a layer without any")
    with _beside(pairs, _INSTEAD, [_INSTEAD]):
        yield


def insert_cores(model: nn.Module) -> None:
    """Put a zero R between the factors of every LoRA layer of a freshly adapted model."""
    layers: list[Any] = [module for module in model.modules() if _is_lora(module)]
    for layer in layers:
        outer = layer.lora_B[ADAPTER]
        core = nn.Linear(outer.in_features, outer.in_features, bias=False)
        core.to(outer.weight)
        layer.lora_B[ADAPTER] = nn.Sequential(OrderedDict(core=core, outer=outer))


def wire_name(parameter: str) -> str:
    """What a parameter of an adapted model is called between hospital and coordinator."""
    name = parameter.replace(f".lora_B.{ADAPTER}.core.weight", CORE)
    return name.replace(f".{ADAPTER}.outer.", ".").replace(f".{ADAPTER}.", ".")


@contextmanager
def _beside(pairs: list[Pair], name: str, active: list[str]) -> Iterator[None]:
    """Inside, these layers hold frozen factors under this name, and add up the ones named."""
    before = [layer._active_adapter for layer, _ in pairs]
    for layer, (a, b) in pairs:
        layer.lora_A[name], layer.lora_B[name] = Fixed(a), Fixed(b)
        layer.lora_dropout[name] = nn.Identity()
        layer.scaling[name] = layer.scaling[ADAPTER]
        layer._active_adapter = active
    try:
        yield
    finally:
        for (layer, _), kept in zip(pairs, before, strict=True):
            for part in (layer.lora_A, layer.lora_B, layer.lora_dropout, layer.scaling):
                del part[name]
            layer._active_adapter = kept


def _pairs(
    model: nn.Module, arrays: Mapping[str, Tensor], ending_a: str, ending_b: str
) -> list[Pair]:
    """Each layer with its two factors, checked; their names end like this."""
    modules: dict[str, Any] = {n: m for n, m in model.named_modules() if _is_lora(m)}
    pairs = []
    for name, right in arrays.items():
        path = name.removesuffix(ending_a)
        other = path + ending_b
        if name.endswith(ending_b) and name.removesuffix(ending_b) + ending_a in arrays:
            continue
        if path == name or path not in modules or other not in arrays:
            raise BadMessage(f"array {name!r} is no factor of a layer that is adapted")
        left, layer = arrays[other], modules[path]
        wanted = ((right.shape[0], layer.in_features), (layer.out_features, right.shape[0]))
        if (tuple(right.shape), tuple(left.shape)) != wanted:
            raise BadMessage(f"array {name!r}: shapes {tuple(left.shape)} and {tuple(right.shape)}")
        if not all(bool(torch.isfinite(factor).all()) for factor in (left, right)):
            raise BadMessage(f"array {name!r} holds a value that is not finite")
        like = layer.lora_A[ADAPTER].weight
        pairs.append((layer, (right.to(like), left.to(like))))
    return pairs


def _is_lora(module: nn.Module) -> bool:
    """A layer of PEFT's with both factors."""
    return hasattr(module, "lora_A") and hasattr(module, "base_layer")
