"""The base of pictures can be made again, small, and is loaded as a pair of encoders."""

from __future__ import annotations

import json

import pytest
import torch

from wardround.client.bases.build_pictures import PicturesRecipe, build, share_named_right
from wardround.client.models import BASES, load_base
from wardround.privacy.errors import BadInput

TINY = PicturesRecipe(
    width=32, text_layers=1, vision_layers=1, heads=2, names=("red disc", "blue bar", "one"),
    pictures_per_name=8, vocabulary=300, steps=60, batch=24, learning_rate=5e-3, warm_up_steps=2,
)  # fmt: skip


def test_recipe_teaches_three_names_and_repeats(tmp_path):
    before = torch.random.get_rng_state()
    manifest = build(TINY, tmp_path, lambda line: None)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert manifest["named_right"] >= 0.8
    assert build(TINY, tmp_path, lambda line: None)["sha256"] == manifest["sha256"]
    base = load_base(str(tmp_path / "pictures"), sha256=manifest["sha256"])
    assert type(base.model).__name__ == "CLIPModel"
    assert not any(parameter.requires_grad for parameter in base.model.parameters())


def test_the_shipped_base_names_fresh_pictures():
    """Of 106 names, one picture each; the manifest says 0.94, three deviations below is 0.87."""
    manifest = json.loads((BASES / "pictures" / "manifest.json").read_text())
    base = load_base("pictures", sha256=manifest["sha256"])
    recipe = PicturesRecipe(seed=12)
    assert share_named_right(base.model, base.tokenizer, recipe, 1) >= 0.87
    assert base.model.config.text_config.eos_token_id == base.tokenizer.eos_token_id != 2


def test_other_kinds_of_models_are_refused(tmp_path):
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=8, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    with torch.random.fork_rng(devices=[]):
        T5EncoderModel(config).save_pretrained(tmp_path)
    with pytest.raises(BadInput, match="cannot be loaded"):
        load_base(str(tmp_path))
