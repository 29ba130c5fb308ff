"""Central editing: methods, regimes, the closed form, locating, relations and fluency."""

from __future__ import annotations

import math

import pytest
import torch

from wardround.client.lora import AdapterConfig
from wardround.client.models import load_base
from wardround.client.tasks.editing.anatomy import Kind
from wardround.client.tasks.editing.deltas import attach_deltas
from wardround.client.tasks.editing.editor import EditConfig, Editor, Regime, run_regime
from wardround.client.tasks.editing.evaluation import by_relation, summary
from wardround.client.tasks.editing.fluency import write_on
from wardround.client.tasks.editing.generated import StudyShape, make_study
from wardround.client.tasks.editing.locate import locate, rank_pattern
from wardround.client.tasks.editing.memit import MemitConfig, Site, Statement, _add, solve
from wardround.client.tasks.editing.methods import Method, query_scales, without_edits
from wardround.client.tasks.editing.metrics import fluency, ngram_entropy
from wardround.client.tasks.editing.public import PublicShape, deal_public
from wardround.client.tasks.editing.records import Edit, edit_record
from wardround.client.tasks.editing.router import RouterKind
from wardround.client.tasks.editing.scales import Normalisation
from wardround.client.tasks.editing.tracing import Rows, TraceConfig
from wardround.client.tasks.editing.world import World
from wardround.privacy.errors import BadInput

LATE = AdapterConfig(tuple(f"layers.{layer}.mlp.down_proj" for layer in (5, 6, 7)), 4, 8.0)
EDITS = [
    record.content
    for record in make_study(
        StudyShape(corroborated=2, weak=0, single=0, random_probes=1), 1, 5
    ).probes
]
OTHERS = [(f.prompt(1), f.value) for f in World().facts[::40]]


def edited(config, regime, edits=EDITS):
    base = load_base("drugs")
    editor = Editor(base, config, 0, OTHERS)
    try:
        return summary(run_regime(editor, edits, regime)), editor
    finally:
        editor.detach()


@pytest.mark.parametrize(
    ("method", "rate", "regime"),
    [
        (Method.LORA, 5e-3, Regime.BATCH),
        (Method.FT, 5e-4, Regime.SEQUENTIAL),
        (Method.MEDLASA, 5e-3, Regime.BATCH),
        (Method.MEMIT, 1.0, Regime.BATCH),
    ],
)
def test_every_method_makes_a_correction_and_gives_the_base_back(method, rate, regime):
    # No method is asked to beat another; all must move an answer that was never right before.
    model = load_base("drugs").model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config = EditConfig(
        LATE, method, rate, steps=15, stop_loss=0.1, router=RouterKind.NONE,
        trace=TraceConfig(rows=Rows.LAST, samples=1), memit=MemitConfig(Site.ANSWER),
    )  # fmt: skip
    scores, _ = edited(config, regime, EDITS[:1])
    assert scores["exact.seen"] >= 0.75
    assert scores["locality"] >= 0.5
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_single_regime_starts_afresh_for_every_edit():
    config = EditConfig(LATE, Method.LORA, 5e-3, steps=8)
    scores, editor = edited(config, Regime.SINGLE)
    assert scores["exact.seen"] > 0.5
    assert all(
        torch.equal(value, editor._start[name]) for name, value in editor.trainable.read().items()
    )


def test_early_stop_saves_steps():
    known = [Edit(EDITS[0].prompt, EDITS[0].subject, EDITS[0].ground_truth)]
    _, editor = edited(EditConfig(LATE, steps=3, stop_loss=0.5), Regime.BATCH, known)
    assert editor.steps == 0
    _, editor = edited(EditConfig(LATE, steps=3, stop_loss=0.0), Regime.BATCH, known)
    assert editor.steps == 3


def test_closed_form_is_the_least_squares_solution(make):
    # Oracle: numpy's least squares of the same ridge problem, rows of sqrt(C) as extra equations.
    import numpy as np

    model = make("llama")
    trainable = attach_deltas(model, AdapterConfig(("layers.2.mlp.down_proj",)))
    layer = model.get_submodule("model.layers.2.mlp.down_proj")
    generator = torch.Generator().manual_seed(4)
    keys = torch.randn(3, 24, generator=generator, dtype=torch.float64)
    change = torch.randn(3, 16, generator=generator, dtype=torch.float64)
    covariance = torch.eye(24, dtype=torch.float64) * 2
    _add(layer, keys, change, covariance, preserve=0.5)
    extra = math.sqrt(0.5 * 3 * 2) * np.eye(24)
    left = np.vstack([keys.numpy(), extra])
    right = np.vstack([change.numpy(), np.zeros((24, 16))])
    wanted = np.linalg.lstsq(left, right, rcond=None)[0].T
    np.testing.assert_allclose(layer.delta.weight.detach().numpy(), wanted, rtol=1e-8, atol=1e-10)
    trainable.detach()


def test_closed_form_needs_sentences_to_preserve(make):
    trainable = attach_deltas(make("llama"), AdapterConfig(("layers.2.mlp.down_proj",)))
    statement = Statement(((1, 2, 3, 4), 2), 1)
    assert list(statement.sites(Site.SUBJECT)) == [1]
    assert list(statement.sites(Site.ANSWER)) == [1, 2]
    with pytest.raises(BadInput, match="sentences whose answers are to be kept"):
        solve(trainable, [statement], [], MemitConfig(), 0)


def test_located_layers_and_ranks_come_from_public_facts():
    base = load_base("drugs")
    facts = [(f.prompt(0), f.drug, f.value) for f in World().facts[:12:4]]
    config = TraceConfig(rows=Rows.LAST, samples=2)
    told = []
    found = locate(base, facts, config, told.append)
    assert told == [1, 2, 3]
    assert found.facts == found.known == 3
    assert found.total_effect > 0.5
    assert 7 in found.top_layers(Kind.MLP, 3)
    pattern = rank_pattern(base.model, found, ("mlp.down_proj",), 8, Normalisation.MIN_MAX)
    assert set(pattern) == {f"model.layers.{n}.mlp.down_proj" for n in range(8)}
    assert max(pattern.values()) == pattern["model.layers.7.mlp.down_proj"] == 8
    assert all(4 <= rank <= 8 for rank in pattern.values())
    with pytest.raises(BadInput, match="no fact's subject occurs"):
        locate(base, [("What?", "Kiro", "x")], config)


def test_entropy_of_ngrams_by_hand():
    # a b a b: bigrams ab twice, ba once: H = -(2/3 log2 2/3 + 1/3 log2 1/3) = 0.9183.
    assert ngram_entropy(["a", "b", "a", "b"], 2) == pytest.approx(0.9182958)
    # Trigrams aba, bab: 1 bit. (2/3 * 0.9183 + 4/3 * 1) / 2 = 0.97277.
    assert fluency("a b a b") == pytest.approx(0.9727653)
    assert fluency("") == 0.0
    assert fluency("a, b") == fluency("x ; y")


def test_writing_on_gives_the_answer_first():
    base = load_base("drugs")
    fact = World().facts[0]
    none = query_scales(RouterKind.NONE, base.model, base.tokenizer, ())
    (text,) = write_on(base.model, base.tokenizer, [fact.prompt(0)], none, tokens=6)
    assert text.strip().startswith(fact.value)


def test_scores_by_relation_are_those_of_its_edits():
    edits = [Edit(f"What is {name}?", name, "x") for name in ("Kiro", "Lumo")]
    edits.append(Edit("Where is Kiro?", "Kiro", "x"))
    scores = [{"exact.seen": [1.0]}, {"exact.seen": [0.0, 1.0]}, {"exact.seen": [0.0]}]
    found = by_relation(edits, scores)
    # By hand: three values 1, 0, 1 under one question and 0 under the other.
    assert found["What is …?"] == {"edits": 2.0, "exact.seen": pytest.approx(2 / 3)}
    assert found["Where is …?"] == {"edits": 1.0, "exact.seen": 0.0}


def test_without_edits_works_on_a_bare_base():
    model = load_base("drugs").model
    with without_edits(model):
        pass


RECORDS = [
    edit_record(f"r{n}", Edit(f"What is D{n}?", f"D{n}", f"new {n}", ground_truth=f"old {n}"))
    for n in range(12)
]


def test_public_file_becomes_corrections_with_support_among_old_truths():
    shape = PublicShape(corroborated=2, support=8, single=1, records_per_hospital=10)
    dealt, asked = deal_public(RECORDS, shape, 4, 3)
    assert [len(records) for records in dealt] == [10] * 4
    assert [record.content.support for record in asked] == ["corroborated"] * 2 + ["single"]
    everything = [record.content for records in dealt for record in records]
    for record in asked:
        edit = record.content
        said = [e.target_new for e in everything if e.prompt == edit.prompt]
        assert said == [edit.target_new] * (8 if edit.support == "corroborated" else 1)
    filler = [e for e in everything if e.prompt not in {r.content.prompt for r in asked}]
    assert len(filler) == 40 - 17
    assert all(e.target_new.startswith("old") for e in filler)
    assert len({record.id for records in dealt for record in records}) == 40
    assert deal_public(RECORDS, shape, 4, 3) == (dealt, asked)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"corroborated": 8, "single": 4}, "asks for 12 corrections .* the file has 12"),
        ({"corroborated": 2, "records_per_hospital": 20}, "is 20; the corrections alone take"),
    ],
)
def test_public_files_that_are_too_small_are_refused(shape, message):
    with pytest.raises(BadInput, match=message):
        deal_public(RECORDS, PublicShape(**shape), 4, 0)


@pytest.mark.parametrize("change", [{"support": 0}, {"single": -1}])
def test_public_shapes_out_of_range_are_refused(change):
    with pytest.raises(ValueError, match=f"{next(iter(change))} is "):
        PublicShape(**change)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (EditConfig, {"adapter": LATE, "learning_rate": 0.0}),
        (EditConfig, {"adapter": LATE, "steps": 0}),
        (EditConfig, {"adapter": LATE, "stop_loss": -1.0}),
        (MemitConfig, {"value_steps": 0}),
        (MemitConfig, {"preserve": 0.0}),
        (MemitConfig, {"value_decay": -1.0}),
    ],
)
def test_settings_out_of_range_are_refused(kind, change):
    with pytest.raises(ValueError, match=f"{list(change)[-1]} is "):
        kind(**change)
