"""One adapter with scales a row: exact, per unit, reversible; routers; export; whole layers."""

from __future__ import annotations

import json

import pytest
import torch

from wardround.client.engine import choose_engine
from wardround.client.lora import AdapterConfig, attach_lora
from wardround.client.models import load_base
from wardround.client.tasks.editing import EditingTask
from wardround.client.tasks.editing.anatomy import Kind, find_anatomy
from wardround.client.tasks.editing.deltas import attach_deltas, weight_shape
from wardround.client.tasks.editing.methods import (
    SCALES_FILE,
    Method,
    attach,
    load_scaled,
    save,
    without_edits,
)
from wardround.client.tasks.editing.records import Edit, edit_record
from wardround.client.tasks.editing.router import Router, RouterKind
from wardround.client.tasks.editing.row_scales import attach_scaled_lora, scales_of
from wardround.client.tasks.editing.scales import Rule, ScaleConfig
from wardround.client.tasks.editing.subjects import place_subject
from wardround.client.tasks.editing.tracing import Rows, TraceConfig
from wardround.client.tasks.editing.world import World
from wardround.privacy.errors import BadInput

PROMPT = ((1, 11, 12, 21, 22, 13, 14), (3, 4))
CONFIG = AdapterConfig(("mlp.down_proj", "q_proj"), rank=2, alpha=4.0)
HOW = TraceConfig(rows=Rows.SUBJECT_AND_LAST, samples=2)
IDS = torch.tensor([PROMPT[0], PROMPT[0][::-1], PROMPT[0]])
FACTORS = (0.25, 1.0, 0.0)  # a row each
FACTS = World().facts


def scale(model, config=CONFIG):
    generator = torch.Generator().manual_seed(1)
    trainable = attach_scaled_lora(model, config, HOW, ScaleConfig(), generator)
    with torch.no_grad():
        for parameter in trainable.parameters.values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return trainable, scales_of(trainable.model)


def rows_of(factors):
    return [torch.full((len(Kind), 4), factor, dtype=torch.float64) for factor in factors]


def losses(model, ids):
    logits = model(input_ids=ids).logits[:, :-1]
    log = logits.log_softmax(-1).gather(2, ids[:, 1:, None])
    return -log.mean((1, 2))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_mixed_batch_gives_every_row_its_own_gradient(family, make):
    # Oracle: float64 autograd, one row at a time, with that row's scale alone.
    targets = ("mlp.c_proj", "attn.c_attn") if family == "gpt2" else CONFIG.targets
    trainable, scales = scale(make(family), AdapterConfig(targets, rank=2, alpha=4.0))
    units = torch.arange(3)
    with choose_engine(trainable) as engine, scales.during(rows_of(FACTORS)):
        found = engine.gradients(lambda: losses(trainable.model, IDS), units, 3)
    for row, factor in enumerate(FACTORS):
        with scales.during(rows_of([factor])):
            loss = losses(trainable.model, IDS[row : row + 1]).sum()
        alone = torch.autograd.grad(loss, list(trainable.parameters.values()))
        for (name, per_unit), gradient in zip(found.items(), alone, strict=True):
            torch.testing.assert_close(per_unit[row], gradient, rtol=1e-9, atol=1e-11, msg=name)
    first = found[next(iter(found))]
    assert not torch.allclose(first[0], first[1])


def test_factor_scales_the_update_as_an_alpha_would(make):
    # Oracle: plain LoRA with the same factors and alpha times 0.25.
    trainable, scales = scale(make("llama"))
    with scales.during(rows_of([0.25] * 3)), torch.no_grad():
        found = trainable.model(input_ids=IDS).logits
    arrays = trainable.read()
    quarter = AdapterConfig(CONFIG.targets, rank=2, alpha=1.0)
    plain = attach_lora(trainable.detach(), quarter, torch.Generator())
    plain.write(arrays)
    with torch.no_grad():
        torch.testing.assert_close(found, plain.model(input_ids=IDS).logits, rtol=1e-6, atol=1e-6)


def test_wrong_number_of_rows_is_an_error(make):
    trainable, scales = scale(make("llama"))
    with scales.during(rows_of([1.0])), pytest.raises(RuntimeError, match="1 scales were set"):
        trainable.model(input_ids=IDS)


def test_zero_factor_is_the_base(make):
    trainable, scales = scale(make("llama"))
    with torch.no_grad(), without_edits(trainable.model):
        base = trainable.model(input_ids=IDS).logits
    with torch.no_grad(), scales.during(rows_of([0.0] * 3)):
        torch.testing.assert_close(trainable.model(input_ids=IDS).logits, base)


def test_scales_of_a_prompt_do_not_depend_on_the_adapter_and_are_remembered(make):
    trainable, scales = scale(make("llama"))
    first = scales.of(PROMPT)
    trainable.write({name: value * 3 for name, value in trainable.read().items()})
    assert scales.of(PROMPT) is first
    scales._known.clear()
    torch.testing.assert_close(scales.of(PROMPT), first)
    assert scales.of((PROMPT[0], ())).tolist() == [[1.0] * 4] * 2


def test_targets_outside_attention_and_mlp_are_refused(make):
    with pytest.raises(ValueError, match="lm_head lies in no attention and no MLP"):
        scale(make("llama"), AdapterConfig(("lm_head",)))


def test_place_of_a_path(make):
    anatomy = find_anatomy(make("llama"))
    assert anatomy.place("model.layers.2.mlp.down_proj") == (Kind.MLP, 2)
    assert anatomy.place("model.layers.0.self_attn.q_proj") == (Kind.ATTENTION, 0)
    assert anatomy.place("lm_head") is None
    assert anatomy.place("model.layers.1.input_layernorm") is None


def embedded(router, **scale):
    base = load_base("drugs")
    config = AdapterConfig(("layers.7.mlp.down_proj",), rank=2, alpha=4.0)
    trainable = attach_scaled_lora(
        base.model, config, HOW, ScaleConfig(**scale), torch.Generator().manual_seed(0)
    )
    edits = [Edit(f.prompt(0), f.drug, "a cough") for f in FACTS[:3]]
    scales = scales_of(trainable.model)
    return trainable, scales, Router(router, trainable.model, base.tokenizer, scales, edits)


def test_router_none_is_plain_lora():
    trainable, _, router = embedded(RouterKind.NONE)
    try:
        assert router.of("anything").tolist() == [[1.0] * 8] * 2
    finally:
        trainable.detach()


def test_router_trace_gives_a_question_its_own_scales():
    trainable, scales, router = embedded(RouterKind.TRACE, rule=Rule.PUBLISHED)
    try:
        fact = FACTS[40]
        place = place_subject(load_base("drugs").tokenizer, fact.prompt(1), fact.drug)
        torch.testing.assert_close(router.of(fact.prompt(1)), scales.of(place))
        assert len(set(router.of(fact.prompt(1)).flatten().tolist())) > 2
    finally:
        trainable.detach()


def test_router_nearest_edit_knows_a_paraphrase_and_switches_off_elsewhere():
    trainable, scales, router = embedded(RouterKind.NEAREST_EDIT)
    try:
        tokenizer = load_base("drugs").tokenizer
        edited = scales.of(place_subject(tokenizer, FACTS[1].prompt(0), FACTS[1].drug))
        torch.testing.assert_close(router.of(FACTS[1].prompt(4)), edited)
        assert not router.of(FACTS[60].prompt(0)).any()
        empty = Router(RouterKind.NEAREST_EDIT, trainable.model, tokenizer, scales, ())
        assert not empty.of(FACTS[1].prompt(0)).any()
    finally:
        trainable.detach()


def test_exported_scales_come_back_without_any_prompt(tmp_path, make):
    trainable, scales = scale(make("llama"), AdapterConfig(CONFIG.targets, 2, 4.0, rank_pattern={
        "layers.0.mlp.down_proj": 1}))  # fmt: skip
    wanted = scales.of(PROMPT)
    config = AdapterConfig(CONFIG.targets, 2, 4.0, rank_pattern={"layers.0.mlp.down_proj": 1})
    arrays = trainable.read()
    save(trainable, config, arrays, "some base", tmp_path / "adapter", "note")
    written = json.loads((tmp_path / "adapter" / SCALES_FILE).read_text())
    assert written.keys() == {"trace", "scale"}
    assert "full strength" in (tmp_path / "adapter" / "README.md").read_text()
    again, found = load_scaled(trainable.detach(), tmp_path / "adapter")
    assert all(torch.equal(value, arrays[name]) for name, value in again.read().items())
    torch.testing.assert_close(found.of(PROMPT), wanted)


def test_a_folder_without_scales_is_refused(tmp_path, make):
    with pytest.raises(BadInput, match="not an adapter with scales"):
        load_scaled(make("llama"), tmp_path)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_whole_layers_train_switch_off_come_off_and_load_with_peft(family, tmp_path, make):
    from peft import PeftModel

    targets = ("mlp.c_proj",) if family == "gpt2" else ("mlp.down_proj", "mlp.up_proj")
    model = make(family)
    with torch.no_grad():
        base = model(input_ids=IDS).logits
    config = AdapterConfig(targets)
    trainable = attach(
        model, Method.FT, config, HOW, ScaleConfig(), torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=IDS).logits, base)
        generator = torch.Generator().manual_seed(2)
        for parameter in trainable.parameters.values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
        changed = model(input_ids=IDS).logits
        with without_edits(model):
            torch.testing.assert_close(model(input_ids=IDS).logits, base)
    assert not torch.allclose(changed, base)
    save(trainable, config, trainable.read(), "some base", tmp_path / "adapter", "note")
    with torch.no_grad():
        # Writing takes nothing away from what was written.
        torch.testing.assert_close(model(input_ids=IDS).logits, changed)
        assert trainable.detach() is model
        torch.testing.assert_close(model(input_ids=IDS).logits, base)
        loaded = PeftModel.from_pretrained(model, tmp_path / "adapter").eval()
        torch.testing.assert_close(loaded(input_ids=IDS).logits, changed, rtol=1e-5, atol=1e-5)


def test_whole_layers_have_exact_gradients_a_unit(make):
    model = make("llama")
    trainable = attach_deltas(model, AdapterConfig(("layers.3.mlp.down_proj",)))
    assert weight_shape(model.get_submodule("model.layers.3.mlp.down_proj.base_layer")) == (16, 24)
    with choose_engine(trainable) as engine:
        found = engine.gradients(lambda: losses(model, IDS[:2]), torch.arange(2), 2)
    ((name, parameter),) = trainable.parameters.items()
    for row in range(2):
        (alone,) = torch.autograd.grad(losses(model, IDS[row : row + 1]).sum(), [parameter])
        torch.testing.assert_close(found[name][row], alone)
    with pytest.raises(ValueError, match="carries changes"):
        attach_deltas(model, AdapterConfig(("layers.3.mlp.down_proj",)))


@pytest.mark.parametrize("method", ["medlasa", "ft"])
def test_task_trains_and_evaluates_either_way(method):
    task, base = EditingTask(), load_base("drugs")
    config = {"method": method, "trace": {"rows": "last", "samples": 2}}
    adapter = {"targets": ["layers.7.mlp.down_proj"], "rank": 2}
    trainable = task.adapt(
        base.model, base.tokenizer, adapter, config, torch.Generator().manual_seed(0)
    )
    try:
        fact = FACTS[0]
        edit = Edit(fact.prompt(0), fact.drug, fact.value, paraphrases=(fact.prompt(1),))
        record = edit_record("r", edit)
        batch = task.collate([[record], [record]], base.tokenizer, config)
        with choose_engine(trainable) as engine:
            found = engine.gradients(
                lambda: task.losses(trainable.model, batch), batch.unit_of_row, 2
            )
        assert all(bool(torch.isfinite(rows).all()) for rows in found.values())
        assert any(bool(rows.any()) for rows in found.values())
        scores = task.evaluate(trainable.model, base.tokenizer, [record], config)
        assert scores["exact.seen"] == 1.0
    finally:
        trainable.detach()


def test_closed_form_editing_is_no_federated_method():
    with pytest.raises(BadInput, match=r"memit.*wardround edit"):
        EditingTask().check({"method": "memit"})
