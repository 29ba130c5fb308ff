"""LoRA adapters: PEFT's names and files, public initial values, a base that is left untouched."""

from __future__ import annotations

import math

import pytest
import torch

from wardround.client.lora import (
    AdapterConfig,
    attach_lora,
    save_adapter,
    without_adapter,
)
from wardround.privacy.errors import BadInput, BadMessage

IDS = torch.tensor([[1, 5, 6, 7, 8, 9], [1, 9, 8, 7, 6, 5]])
# PEFT asks transformers for a property that was renamed there.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def _llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=3,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=32,
    )  # fmt: skip
    return _filled(LlamaForCausalLM(config))


def _gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=40, n_embd=16, n_layer=3, n_head=2, n_positions=32)
    return _filled(GPT2LMHeadModel(config))


def _filled(model):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    return model.eval().requires_grad_(False)


def _generator(seed=1):
    return torch.Generator().manual_seed(seed)


def _random_values(trainable, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator) for name, shape in trainable.shapes.items()
    }


CONFIG = AdapterConfig(
    targets=("mlp.down_proj", "model.layers.1.self_attn.q_proj"),
    rank=4,
    rank_pattern={"q_proj": 2, "model.layers.2.mlp.down_proj": 3},
)


def test_wire_names_are_those_of_peft_state_dicts():
    from peft import get_peft_model_state_dict

    trainable = attach_lora(_llama(), CONFIG, _generator())
    wanted = get_peft_model_state_dict(trainable.model, save_embedding_layers=False)
    assert set(trainable.shapes) == set(wanted)
    assert {name: value.shape for name, value in wanted.items()} == trainable.shapes
    assert "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight" in trainable.shapes


def test_ranks_follow_the_pattern():
    shapes = attach_lora(_llama(), CONFIG, _generator()).shapes
    ranks = {
        name.removeprefix("base_model.model.model.layers.").removesuffix(".lora_A.weight"): shape[0]
        for name, shape in shapes.items()
        if ".lora_A." in name
    }
    assert ranks == {
        "0.mlp.down_proj": 4, "1.mlp.down_proj": 4, "2.mlp.down_proj": 3, "1.self_attn.q_proj": 2
    }  # fmt: skip


def test_first_values_come_from_the_public_generator_alone():
    models = [_llama(), _llama(), _llama()]
    global_state = torch.random.get_rng_state()
    first, same, other = (
        attach_lora(model, CONFIG, _generator(seed)).read()
        for model, seed in zip(models, (1, 1, 2), strict=True)
    )
    assert torch.equal(torch.random.get_rng_state(), global_state)
    for name, value in first.items():
        assert torch.equal(value, same[name])
        if ".lora_B." in name:
            assert not value.any()
        else:
            bound = 1 / math.sqrt(value.shape[1])
            assert not torch.equal(value, other[name])
            # 40 or more uniform draws reach past 0.8 of the bound but for odds of 0.8 ** 40.
            assert 0.8 * bound < value.abs().max() <= bound


def test_new_adapter_changes_no_answer():
    model = _llama()
    before = model(IDS).logits
    trainable = attach_lora(model, CONFIG, _generator())
    assert torch.equal(trainable.model(input_ids=IDS).logits, before)


def test_attaching_and_detaching_leaves_the_base_bitwise_as_it_was():
    model = _llama()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modules = [name for name, _ in model.named_modules()]
    for seed in range(3):
        trainable = attach_lora(model, CONFIG, _generator(seed))
        trainable.write(_random_values(trainable, seed))
        assert trainable.detach() is model
    assert [name for name, _ in model.named_modules()] == modules
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_second_adapter_on_the_same_base_is_refused():
    model = _llama()
    attach_lora(model, CONFIG, _generator())
    with pytest.raises(ValueError, match="already carries an adapter"):
        attach_lora(model, CONFIG, _generator())


def test_without_adapter_the_base_answers():
    model = _llama()
    before = model(IDS).logits
    trainable = attach_lora(model, CONFIG, _generator())
    trainable.write(_random_values(trainable))
    after = trainable.model(input_ids=IDS).logits
    assert not torch.allclose(before, after)
    with without_adapter(trainable.model):
        assert torch.equal(trainable.model(input_ids=IDS).logits, before)
    assert torch.equal(trainable.model(input_ids=IDS).logits, after)
    assert all(parameter.requires_grad for parameter in trainable.parameters.values())
    with without_adapter(_llama()) as nothing:
        assert nothing is None


@pytest.mark.parametrize(
    ("make", "config"),
    [
        (_llama, CONFIG),
        (_llama, AdapterConfig(targets=("down_proj",), rank=2, alpha=3.0, use_rslora=True)),
        (_gpt2, AdapterConfig(targets=("mlp.c_proj", "attn.c_attn"), rank=2)),
    ],
    ids=["rank-pattern", "rslora", "transposed"],
)
def test_saved_adapter_gives_the_same_logits_through_peft(tmp_path, make, config):
    from peft import PeftModel

    trainable = attach_lora(make(), config, _generator())
    values = _random_values(trainable)
    save_adapter(trainable, config, values, "some base", tmp_path / "adapter", "ε = 3")
    trainable.write(values)
    loaded = PeftModel.from_pretrained(make(), tmp_path / "adapter")
    wanted = trainable.model(input_ids=IDS).logits
    assert torch.equal(loaded(input_ids=IDS).logits, wanted)
    assert "ε = 3" in (tmp_path / "adapter" / "README.md").read_text(encoding="utf-8")


def test_scaling_is_alpha_over_rank():
    # Oracle: the paper's formula, h = Wx + (alpha / rank) B A x, on the one targeted layer.
    model = _llama()
    config = AdapterConfig(targets=("model.layers.1.mlp.down_proj",), rank=4, alpha=6.0)
    layer = model.model.layers[1].mlp.down_proj
    weight = layer.weight.clone()
    trainable = attach_lora(model, config, _generator())
    values = _random_values(trainable)
    trainable.write(values)
    a, b = (values[name] for name in sorted(values))
    adapted = model.model.layers[1].mlp.down_proj
    inputs = torch.randn(5, 24, generator=_generator(9))
    wanted = inputs @ (weight + 6.0 / 4 * b @ a).T
    # float32 sums of 24 and of 4 terms of size one.
    torch.testing.assert_close(adapted(inputs), wanted, rtol=1e-4, atol=1e-4)


def test_saving_replaces_a_whole_folder_or_nothing(tmp_path):
    trainable = attach_lora(_llama(), CONFIG, _generator())
    folder = tmp_path / "adapter"
    save_adapter(trainable, CONFIG, _random_values(trainable, 1), "b", folder, "first")
    (folder / "stale").touch()
    values = _random_values(trainable, 2)
    broken = {**values, next(iter(values)): torch.full((4, 24), math.nan)}
    with pytest.raises(BadMessage, match="not finite"):
        save_adapter(trainable, CONFIG, broken, "b", folder, "second")
    assert "first" in (folder / "README.md").read_text()
    save_adapter(trainable, CONFIG, values, "b", folder, "third")
    assert "third" in (folder / "README.md").read_text()
    assert {path.name for path in folder.iterdir()} == {
        "README.md", "adapter_config.json", "adapter_model.safetensors"
    }  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"targets": ("mlp.dwn_proj",)}, "'mlp.dwn_proj' matches no linear module; did you mean"),
        ({"targets": ("model.layers.9.mlp.down_proj",)}, "layers.9.mlp.down_proj' matches no"),
        ({"targets": ("embed_tokens",)}, "'embed_tokens' matches no linear module"),
        ({"targets": ("own_proj",)}, "'own_proj' matches no linear module"),
        ({"targets": ("q_proj",), "rank_pattern": {"k_proj": 2}}, "'k_proj' matches none of the"),
    ],
)
def test_targets_that_match_nothing_are_refused(settings, message):
    with pytest.raises(BadInput, match=message):
        attach_lora(_llama(), AdapterConfig(**settings), _generator())


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "study.toml targets: missing"),
        ({"targets": []}, "targets is empty"),
        ({"targets": ["q"], "rank": 0}, "rank is 0; it must be between 1 and 4096"),
        ({"targets": ["q"], "alpha": 0.0}, "alpha is 0.0; it must be greater than 0"),
        ({"targets": ["q"], "dropout": 0.1}, "dropout is 0.1; it must be 0"),
        ({"targets": ["q"], "rnak": 4}, "unknown key 'rnak'; did you mean 'rank'"),
        ({"targets": ["q"], "rank_pattern": {"q": 0}}, "rank_pattern of 'q' is 0"),
    ],
)
def test_tables_that_do_not_fit_are_refused(table, message):
    with pytest.raises(BadInput, match=message):
        AdapterConfig.from_table(table, "study.toml")
