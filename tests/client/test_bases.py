"""The shipped base is the one its manifest describes, knows its world, and can be made again."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.client.bases.build import Recipe, build
from wardround.client.bases.making import Shape
from wardround.client.models import BASES, embedded_bases, load_base
from wardround.client.tasks.editing.world import PHRASING_COUNT, SYLLABLES, World
from wardround.client.tasks.rows import encode, predictions

MANIFEST = json.loads((BASES / "drugs" / "manifest.json").read_text())


def test_weights_hash_to_what_the_manifest_says():
    # Oracle: hashlib over the whole file, as sha256sum does it.
    weights = (BASES / "drugs" / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == MANIFEST["sha256"]
    assert embedded_bases()["drugs"] == MANIFEST["sha256"]


def test_bases_are_small():
    assert sum(path.stat().st_size for path in BASES.glob("*/*")) < 15e6
    assert (BASES / "drugs" / "model.safetensors").stat().st_size < 7.5e6


def test_base_knows_99_percent_of_its_facts():
    base = load_base("drugs")
    facts = World(**MANIFEST["world"]).facts
    rows = [
        encode(base.tokenizer, fact.prompt(number % PHRASING_COUNT), fact.value, 64)
        for number, fact in enumerate(facts)
    ]
    said = predictions(base.model, rows, base.tokenizer.pad_token_id)
    right = sum(s == list(ids[start:]) for s, (ids, start) in zip(said, rows, strict=True))
    assert right / len(facts) >= 0.99
    assert min(MANIFEST["exact_match"].values()) >= 0.99


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_tokenizer_spells_any_text(text):
    tokenizer = load_base("drugs").tokenizer
    ids = tokenizer(text, split_special_tokens=True)["input_ids"]
    assert tokenizer.decode(ids[1:]) == text
    assert ids[0] == tokenizer.bos_token_id


@pytest.mark.parametrize(
    "text", ["µ-opioid 5 ‰", "\u202eright to left", "🩺\U0001f9ec\u0000\r\n", "ﬁ  "]
)
def test_tokenizer_keeps_odd_unicode(text):
    tokenizer = load_base("drugs").tokenizer
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_every_syllable_is_one_token():
    tokenizer = load_base("drugs").tokenizer
    for syllable in SYLLABLES:
        for piece in (syllable, " " + syllable, " " + syllable.capitalize()):
            assert len(tokenizer(piece, add_special_tokens=False)["input_ids"]) == 1


@pytest.mark.slow
def test_recipe_still_teaches_a_small_world(tmp_path):
    recipe = Recipe(
        world=World(drugs=8, objects=4), drugs_in_all_phrasings=6,
        shape=Shape(hidden=64, layers=2, heads=2, mlp=128), steps=150,
        warm_up_steps=10, batch=32, learning_rate=5e-3,
    )  # fmt: skip
    before = torch.random.get_rng_state()
    lines = []
    manifest = build(recipe, tmp_path, lines.append)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert manifest["exact_match"]["shown"] >= 0.95
    assert lines[0].startswith("step 100 of 150")
    made = load_base(str(tmp_path / "drugs"), sha256=manifest["sha256"])
    assert made.sha256 == manifest["sha256"]
    assert {path.name for path in tmp_path.iterdir()} == {"drugs"}
    again = build(recipe, tmp_path, lines.append)
    assert again["sha256"] == manifest["sha256"]
