"""Tracing against the plain loop, against what must hold by arithmetic, and on the shipped base."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wardround.client.models import load_base
from wardround.client.tasks.editing.anatomy import Kind, find_anatomy
from wardround.client.tasks.editing.subjects import find_subject, place_subject
from wardround.client.tasks.editing.tracing import (
    Restoration,
    Rows,
    TraceConfig,
    TracingBench,
    subject_sigma,
    trace,
)
from wardround.client.tasks.editing.world import World
from wardround.privacy.errors import BadInput
from wardround.study.bench.tracing import plain_trace

FAMILIES = ("llama", "qwen2", "mistral", "gemma", "gemma2", "gptj", "gpt2")
IDS = (1, 11, 12, 21, 22, 13, 14)
SUBJECT = (3, 4)
EVERY = TraceConfig(rows=Rows.SUBJECT_AND_LAST, window=3, samples=4)


@pytest.mark.parametrize("family", FAMILIES)
def test_batched_runs_agree_with_the_plain_loop(family, make):
    # Oracle: one forward pass for each restoration, no cache and no skipped block. In float64.
    anatomy = find_anatomy(make(family))
    found = trace(anatomy, IDS, SUBJECT, EVERY, 0.5)
    assert found.tokens == (3, 4, 6)
    plain = plain_trace(anatomy, IDS, SUBJECT, found.tokens, EVERY, 0.5)
    for kind in Kind:
        torch.testing.assert_close(found.restored[kind], plain[kind], rtol=1e-6, atol=1e-7)
        # A comparison of zeros would show nothing.
        assert float(found.indirect_effect(kind).abs().max()) > 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_without_noise_there_is_no_effect(family, make):
    config = TraceConfig(rows=Rows.SUBJECT_AND_LAST, noise_factor=0.0, samples=2)
    found = trace(find_anatomy(make(family)), IDS, SUBJECT, config, 0.5)
    assert found.total_effect == pytest.approx(0, abs=1e-7)
    for kind in Kind:
        assert float(found.indirect_effect(kind).abs().max()) < 1e-7


@pytest.mark.parametrize("family", FAMILIES)
def test_everything_put_back_is_the_clean_run(family, make):
    # The last token is not blurred, so its state is its own embedding and the clean outputs.
    bench = TracingBench(find_anatomy(make(family)), IDS, SUBJECT, EVERY, 0.5)
    everything = Restoration(tuple(Kind), range(4), tuple(range(3, 7)))
    assert float(bench.restore([everything])) == pytest.approx(bench.clean, rel=1e-6)
    assert abs(bench.clean - bench.corrupted) > 1e-4


def test_order_of_rows_does_not_matter(make):
    bench = TracingBench(find_anatomy(make("llama")), IDS, SUBJECT, EVERY, 0.5)
    plan = [Restoration((kind,), range(1, 3), (token,)) for kind in Kind for token in (3, 4, 6)]
    there, back = bench.restore(plan), bench.restore(plan[::-1])
    torch.testing.assert_close(there, back.flip(0), rtol=1e-6, atol=0)


def test_tokens_before_the_subject_change_nothing(make):
    anatomy = find_anatomy(make("qwen2"))
    config = TraceConfig(rows=Rows.ALL_BUT_LAST, samples=2)
    found = trace(anatomy, IDS, SUBJECT, config, 0.5)
    assert found.tokens == (0, 1, 2, 3, 4, 5)
    plain = plain_trace(anatomy, IDS, SUBJECT, found.tokens, config, 0.5)
    for kind in Kind:
        torch.testing.assert_close(found.restored[kind], plain[kind], rtol=1e-6, atol=1e-7)


def test_model_is_left_as_it_was_found(make):
    model = make("llama")
    trace(find_anatomy(model), IDS, SUBJECT, EVERY, 0.5)
    assert not any("forward" in vars(module) for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_subject_at_the_very_beginning_needs_no_past(make):
    found = trace(find_anatomy(make("gpt2")), IDS, (0, 1), EVERY, 0.5)
    plain = plain_trace(find_anatomy(make("gpt2")), IDS, (0, 1), found.tokens, EVERY, 0.5)
    for kind in Kind:
        torch.testing.assert_close(found.restored[kind], plain[kind], rtol=1e-6, atol=1e-7)


def test_window_is_the_published_share_of_the_depth():
    assert TraceConfig().layers(16, 32) == range(11, 21)
    assert TraceConfig().layers(0, 32) == range(0, 5)
    assert TraceConfig().layers(4, 8) == range(3, 6)
    assert TraceConfig(window=1).layers(2, 8) == range(2, 3)


def test_models_without_decoder_blocks_are_refused():
    with pytest.raises(BadInput, match="Linear: no list of decoder blocks"):
        find_anatomy(nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": -1}, "window is -1"),
        ({"sigma": -0.1}, "sigma is -0.1"),
        ({"noise_factor": float("inf")}, "noise_factor is inf"),
        ({"samples": 0}, "samples is 0; it must be between 1 and 1000"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        TraceConfig(**change)


def test_embedded_base_recalls_in_few_layers():
    # The late MLPs at the last token carry the answer: 3 x the weakest layer, effect above 0.5.
    base = load_base("drugs")
    anatomy = find_anatomy(base.model)
    config = TraceConfig(rows=Rows.SUBJECT_AND_LAST, samples=4)
    sigma = subject_sigma(base.model)
    effects, last = [], []
    for fact in World().facts[:24:4]:
        ids, places = place_subject(base.tokenizer, fact.prompt(0), fact.drug)
        found = trace(anatomy, ids, places, config, sigma)
        effects.append(found.total_effect)
        last.append(found.indirect_effect(Kind.MLP)[-1])
    mean = torch.stack(last).mean(0)
    assert sum(effects) / len(effects) > 0.5
    assert float(mean.max()) >= 3 * float(mean.min())
    assert int(mean.argmax()) >= 5


def test_sigma_is_the_deviation_of_the_subjects_embeddings(make):
    model = make("llama")
    table = model.get_input_embeddings().weight
    # Oracle: numpy over the same entries, with torch's correction.
    wanted = table[[21, 22]].numpy().astype("float32").std(ddof=1)
    assert subject_sigma(model, [(21, 22), (22,)]) == pytest.approx(float(wanted), rel=1e-6)
    assert subject_sigma(model) == pytest.approx(float(table.float().std()), rel=1e-6)


def test_subject_is_found_among_the_tokens():
    tokenizer = load_base("drugs").tokenizer
    name = World().names[0]
    ids, places = place_subject(tokenizer, f"Too much {name} tends to end in", name)
    assert tokenizer.decode([ids[place] for place in places]).strip() == name
    assert place_subject(tokenizer, "Too much", name)[1] == ()


@pytest.mark.parametrize(
    ("prompt", "known", "wanted"),
    [
        ("What disease does valproic acid treat?", ("acid", "valproic acid"), "valproic acid"),
        ("What disease does Valproic Acid treat?", (), "Valproic Acid"),
        ("which enzyme does it inhibit?", (), "inhibit"),
        ("???", (), "???"),
    ],
)
def test_subject_of_a_bare_question(prompt, known, wanted):
    assert find_subject(prompt, known) == wanted
