"""The shipped base of speech understands voices it never heard; the recipe repeats itself."""

from __future__ import annotations

import json

import torch

from wardround.client.bases.build_speech import SpeechRecipe, build
from wardround.client.models import BASES, load_base
from wardround.client.tasks.draws import Draws
from wardround.client.tasks.registry import find_task
from wardround.client.tasks.spectron.config import SpectronTaskConfig
from wardround.client.tasks.spectron.evaluation import evaluate_speech
from wardround.client.tasks.spectron.generated import PUBLIC, in_voices
from wardround.client.tasks.spectron.voices import draw_voice

TINY = SpeechRecipe(
    bins=16, encoder_width=16, encoder_layers=1, width=32, layers=1, heads=2, voices=2, steps=3,
    batch=4,
)  # fmt: skip


def test_recipe_repeats_and_touches_no_global_generator(tmp_path) -> None:
    before = torch.random.get_rng_state()
    manifest = build(TINY, tmp_path, lambda line: None)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert build(TINY, tmp_path, lambda line: None)["sha256"] == manifest["sha256"]


def test_the_shipped_base_understands_a_fresh_voice() -> None:
    """One voice, eight questions; the manifest's figures are over four voices, 32 questions."""
    manifest = json.loads((BASES / "speech" / "manifest.json").read_text())
    find_task("spectron")  # makes the kind of model known
    base = load_base("speech", sha256=manifest["sha256"])
    records = in_voices(PUBLIC, [draw_voice(Draws(77, "fresh"))], "fresh")
    found = evaluate_speech(base.model, base.tokenizer, records, SpectronTaskConfig())
    assert found["wer"] <= 0.3
    assert found["answers"] >= 0.7
