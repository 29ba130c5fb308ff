"""LoRA on a base layer that is only called, as 4-bit and offloaded ones are.

``Packed`` stands in for a quantised layer: its weight is bytes in one dimension, and only its own
forward pass knows what they mean.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn import functional

from wardround.client.engine import FusedEngine, choose_engine
from wardround.client.engine.kinds import lora as lora_kind
from wardround.client.lora import AdapterConfig, attach_lora

EXACT = 1e-9
ADAPTER = AdapterConfig(targets=("mlp.down_proj", "q_proj"), rank=3)


class Packed(nn.Linear):
    """A frozen layer of 256 levels; ``weight`` is no matrix and no float."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, "meta")
        whole = layer.weight.detach()
        self.step = float(whole.abs().max()) / 127
        packed = (whole / self.step).round().add(128).to(torch.uint8).flatten()
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.bias = layer.bias
        self.type = whole.dtype
        self.calls = 0

    def unpack(self) -> Tensor:
        levels = self.weight.to(self.type) - 128
        return (levels * self.step).view(self.out_features, self.in_features)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return functional.linear(x, self.unpack(), self.bias)


def packed_lora(kit: Any, dtype: torch.dtype = torch.float64) -> Any:
    """Every linear layer of a tiny model packed, then LoRA on some of them."""
    base = kit.lora("llama", dtype).model.unload()
    for path, module in list(base.named_modules()):
        if type(module) is nn.Linear and path != "lm_head":
            base.set_submodule(path, Packed(module))
    trainable = attach_lora(base, ADAPTER, torch.Generator().manual_seed(3))
    with torch.no_grad():
        for name, parameter in trainable.parameters.items():
            if ".lora_B." in name:  # zero at the start, and then A would have no gradient
                drawn = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(4))
                parameter.copy_(drawn / 8)
    return trainable


def layers(trainable: Any) -> list[Any]:
    return [m for m in trainable.model.modules() if isinstance(m, LoraLinear)]


def doubled(trainable: Any) -> Any:
    """Factors in float64, so that the oracle's accuracy shows."""
    for parameter in trainable.parameters.values():
        parameter.data = parameter.data.double()
    return trainable


@pytest.mark.parametrize("unit", ["record", "pair", "list", "patient"])
def test_a_base_that_is_only_called(kit: Any, unit: str) -> None:
    case = kit.case(unit, doubled(packed_lora(kit)))
    expected = case.oracle()
    for layer in layers(case.trainable):
        layer.base_layer.calls = 0
    with FusedEngine(case.trainable) as attached:
        found = attached.gradients(case.losses, case.unit_of_row, case.units)
        assert all("forward" in vars(layer) for layer in layers(case.trainable))
    assert all(layer.base_layer.calls == 1 for layer in layers(case.trainable))
    assert kit.worst(found, expected) < EXACT


def test_the_same_logits_with_and_without_the_engine(kit: Any) -> None:
    case = kit.case("record", doubled(packed_lora(kit)))
    apart = case.losses()
    with FusedEngine(case.trainable):
        attached = case.losses()
    torch.testing.assert_close(attached, apart, rtol=1e-12, atol=0)


def test_float32_factors_on_a_bfloat16_base(kit: Any) -> None:
    """No further from float64 than PEFT's own forward on the same base, give or take a half."""
    exact = kit.case("patient", doubled(packed_lora(kit))).oracle()
    trainable = packed_lora(kit, torch.bfloat16)
    for parameter in trainable.parameters.values():
        parameter.data = parameter.data.float()
    case = kit.case("patient", trainable)
    with FusedEngine(trainable) as attached:
        found = attached.gradients(case.losses, case.unit_of_row, case.units)
    assert all(rows.dtype == torch.float32 for rows in found.values())
    assert kit.worst(found, exact) < 1.5 * kit.worst(case.oracle(), exact)


def test_a_base_somebody_watches_is_called(kit: Any) -> None:
    """Dispatch over devices hangs hooks on the base layers; they must run."""
    case = kit.case("patient", kit.lora("llama"))
    expected, calls = case.oracle(), []
    for layer in layers(case.trainable):
        layer.base_layer.register_forward_pre_hook(lambda *_: calls.append(1) and None)
    with choose_engine(case.trainable, "fused") as attached:
        found = attached.gradients(case.losses, case.unit_of_row, case.units)
    assert len(calls) == len(layers(case.trainable))
    assert kit.worst(found, expected) < EXACT


def test_without_bitsandbytes_there_are_no_quantised_layers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import peft.tuners.lora

    monkeypatch.delattr(peft.tuners.lora, "bnb", raising=False)
    monkeypatch.setitem(sys.modules, "peft.tuners.lora.bnb", None)
    assert lora_kind._lora_types() == [LoraLinear]


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_around_a_called_base(kit: Any, reentrant: bool) -> None:
    trainable = doubled(packed_lora(kit))
    inner = trainable.model.base_model.model
    inner.activation_checkpointing_enable({"use_reentrant": reentrant})
    trainable.model.enable_input_require_grads()
    trainable.model.train()
    case = kit.case("patient", trainable)
    expected = case.oracle()
    with FusedEngine(trainable) as attached:
        found = attached.gradients(case.losses, case.unit_of_row, case.units)
    assert kit.worst(found, expected) < EXACT
