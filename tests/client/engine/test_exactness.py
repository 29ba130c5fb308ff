"""Per-unit gradients equal float64 autograd on one unit at a time, over models, units and options.

1e-9 relative is float64 with room: 2^-53 is 1e-16, and the longest path has some 1e3 roundings;
measured differences are near 1e-15.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from wardround.client.engine import choose_engine
from wardround.client.lora import AdapterConfig, attach_lora

EXACT = 1e-9
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "rank-pattern": {"rank_pattern": {"mlp.*_proj|mlp.c_fc": 7}},
    "dropout-module": {"lora_dropout": 0.5},  # evaluation mode: PEFT's own forward, no drawing
    "lora-bias": {"lora_bias": True},
    "checkpoint-reentrant": {"checkpointing": True},
    "checkpoint-not-reentrant": {"checkpointing": False},
}


@pytest.mark.parametrize("unit", ["record", "pair", "list", "patient"])
@pytest.mark.parametrize("model", ["llama", "gpt2", "qwen2"])
@pytest.mark.parametrize("engine", ["fused", "opacus"])
def test_models_and_units(kit: Any, model: str, unit: str, engine: str) -> None:
    case = kit.case(unit, kit.lora(model))
    with choose_engine(case.trainable, engine) as attached:
        found = attached.gradients(case.losses, case.unit_of_row, case.units)
    assert kit.worst(found, case.oracle()) < EXACT


@pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed")  # about merging; nobody merges
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize(
    ("model", "unit"), [("llama", "patient"), ("gpt2", "patient"), ("gpt2", "pair")]
)
def test_options(kit: Any, model: str, unit: str, option: str) -> None:
    case = kit.case(unit, kit.lora(model, **OPTIONS[option]))
    with choose_engine(case.trainable, "fused") as attached:
        found = attached.gradients(case.losses, case.unit_of_row, case.units)
    assert kit.worst(found, case.oracle()) < EXACT


@pytest.mark.parametrize("unit", ["record", "pair", "list", "patient"])
@pytest.mark.parametrize("engine", ["fused", "opacus"])
def test_several_forwards_and_a_reference_pass(kit: Any, unit: str, engine: str) -> None:
    case = kit.case(unit, kit.lora("llama"), forwards=2, reference=True)
    with choose_engine(case.trainable, engine) as attached:
        found = attached.gradients(case.losses, case.unit_of_row, case.units)
    assert kit.worst(found, case.oracle()) < EXACT


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("unit", ["pair", "patient"])
def test_several_forwards_under_checkpointing(kit: Any, unit: str, reentrant: bool) -> None:
    """Every forward is run again in the backward pass, and counts once all the same."""
    case = kit.case(unit, kit.lora("llama", checkpointing=reentrant), forwards=2)
    with choose_engine(case.trainable, "fused") as attached:
        found = attached.gradients(case.losses, case.unit_of_row, case.units)
    assert kit.worst(found, case.oracle()) < EXACT


@pytest.mark.parametrize("reference", [False, True])
def test_one_factor_frozen(kit: Any, reference: bool) -> None:
    """Also where PEFT thaws the frozen factor, as leaving ``disable_adapter`` does."""
    trainable = kit.lora("llama")
    for name, parameter in trainable.model.named_parameters():
        if "lora_A" in name:
            parameter.requires_grad_(False)
    case = kit.case("record", kit.named(trainable.model), reference=reference)
    with choose_engine(case.trainable, "fused") as attached:
        found = attached.gradients(case.losses, case.unit_of_row, case.units)
    assert all("lora_B" in name for name in found)
    assert kit.worst(found, case.oracle()) < EXACT


def test_bias_of_the_base_trains_too(kit: Any) -> None:
    case = kit.case("patient", kit.lora("qwen2", bias="lora_only"))
    assert any(name.endswith("base_layer.bias") for name in case.trainable.parameters)
    with choose_engine(case.trainable, "fused") as attached:
        found = attached.gradients(case.losses, case.unit_of_row, case.units)
    assert kit.worst(found, case.oracle()) < EXACT


@pytest.mark.parametrize("unit", ["list", "patient"])
@pytest.mark.parametrize("model", ["llama", "gpt2"])
def test_a_layer_used_by_two_places(kit: Any, model: str, unit: str) -> None:
    trainable = kit.lora(model)
    inner = trainable.model.base_model.model
    if model == "llama":
        layers = inner.model.layers
        layers[1].mlp.down_proj = layers[0].mlp.down_proj
    else:
        layers = inner.transformer.h
        layers[1].mlp.c_proj = layers[0].mlp.c_proj
    case = kit.case(unit, kit.named(trainable.model))
    with choose_engine(case.trainable, "fused") as attached:
        found = attached.gradients(case.losses, case.unit_of_row, case.units)
    assert kit.worst(found, case.oracle()) < EXACT


def test_dropout_while_training(kit: Any) -> None:
    """The same masks from the same generator state: units must add up to autograd's own sum."""
    case = kit.case("patient", kit.lora("llama", lora_dropout=0.3))
    case.trainable.model.train()
    with torch.random.fork_rng():
        state = torch.get_rng_state()
        case.losses().sum().backward()
        total = {name: p.grad[None] for name, p in case.trainable.parameters.items()}
        torch.set_rng_state(state)
        with choose_engine(case.trainable, "fused") as attached:
            found = attached.gradients(case.losses, case.unit_of_row, case.units)
    summed = {name: rows.sum(0, keepdim=True) for name, rows in found.items()}
    assert kit.worst(summed, total) < EXACT


def test_one_base_for_several_hospitals_in_turn(kit: Any) -> None:
    """Each attaches its own adapter to the same base and takes it off again."""
    base = kit.lora("llama").model.unload()
    found = []
    for rank in (2, 3, 2):
        adapter = AdapterConfig(targets=("mlp.down_proj", "q_proj"), rank=rank)
        trainable = attach_lora(base, adapter, torch.Generator().manual_seed(rank))
        kit.settle(trainable.model, torch.float64)
        case = kit.case("patient", trainable)
        with choose_engine(trainable) as attached:
            found.append(attached.gradients(case.losses, case.unit_of_row, case.units))
        assert kit.worst(found[-1], case.oracle()) < EXACT
        trainable.detach()
    assert kit.worst(found[2], found[0]) < EXACT


def test_two_adapters_of_which_one_is_active(kit: Any) -> None:
    from peft import LoraConfig

    model = kit.lora("llama").model
    with torch.random.fork_rng():
        model.add_adapter("second", LoraConfig(r=2, target_modules="all-linear"))
    model.set_adapter("second")
    kit.settle(model, torch.float64)
    case = kit.case("record", kit.named(model))
    assert all(".second." in name for name in case.trainable.parameters)
    with choose_engine(case.trainable, "fused") as attached:
        found = attached.gradients(case.losses, case.unit_of_row, case.units)
    assert kit.worst(found, case.oracle()) < EXACT


def test_summed_gradient_is_the_sum(kit: Any) -> None:
    case = kit.case("record", kit.lora("gpt2"))
    with choose_engine(case.trainable, "fused") as attached:
        total = attached.total(case.losses)
    summed = {name: rows.sum(0) for name, rows in case.oracle().items()}
    assert kit.worst(total, summed) < EXACT


@pytest.mark.parametrize("model", ["llama", "gpt2"])
def test_float32_stays_within_its_rounding(kit: Any, model: str) -> None:
    """1e-4: 2^-24 is 6e-8 and the longest path has some 1e3 roundings, so 6e-5 at worst."""
    exact = kit.case("patient", kit.lora(model)).oracle()
    case = kit.case("patient", kit.lora(model, dtype=torch.float32))
    with choose_engine(case.trainable, "fused") as attached:
        found = attached.gradients(case.losses, case.unit_of_row, case.units)
    assert all(rows.dtype == torch.float32 for rows in found.values())
    assert kit.worst(found, exact) < 1e-4


@pytest.mark.parametrize("model", ["llama", "gpt2"])
def test_bfloat16_base_with_float32_factors(kit: Any, model: str) -> None:
    """No further from float64 than PEFT's own forward on the same base, give or take a half."""
    exact = kit.case("patient", kit.lora(model)).oracle()
    trainable = kit.lora(model, dtype=torch.float32)
    for parameter in trainable.model.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()
    case = kit.case("patient", trainable)
    with choose_engine(trainable, "fused") as attached:
        found = attached.gradients(case.losses, case.unit_of_row, case.units)
    assert all(rows.dtype == torch.float32 for rows in found.values())
    assert kit.worst(found, exact) < 1.5 * kit.worst(case.oracle(), exact)


@pytest.mark.parametrize("lora", [{}, {"lora_dropout": 0.5}])
def test_autocast(kit: Any, lora: dict[str, Any]) -> None:
    """No further from float64 than plain autograd under the same autocast, give or take a half."""
    exact = kit.case("patient", kit.lora("llama")).oracle()
    case = kit.case("patient", kit.lora("llama", dtype=torch.float32, **lora))
    with torch.autocast("cpu", torch.bfloat16):
        with choose_engine(case.trainable, "fused") as attached:
            found = attached.gradients(case.losses, case.unit_of_row, case.units)
        plain = case.oracle()
    assert kit.worst(found, exact) < 1.5 * kit.worst(plain, exact)


def test_attached_forward_is_the_forward(kit: Any) -> None:
    case = kit.case("record", kit.lora("gpt2"))
    apart = case.losses()
    with choose_engine(case.trainable, "fused"):
        attached = case.losses()
    torch.testing.assert_close(attached, apart, rtol=1e-12, atol=0)
