"""The task on the embedded base: it learns, exports, names pictures by other names, and writes."""

from __future__ import annotations

import csv

import pytest
import torch

from wardround.client.engine import choose_engine
from wardround.client.models import load_base
from wardround.client.tasks.base import Predicts, Record
from wardround.client.tasks.cocoop.config import cocoop_config
from wardround.client.tasks.cocoop.dealing import as_png, deal_generated
from wardround.client.tasks.cocoop.inference import load_classifier
from wardround.client.tasks.cocoop.task import CocoopTask
from wardround.client.tasks.cocoop.world import NAMES, draw
from wardround.privacy import Unit
from wardround.privacy.errors import BadInput, BadMessage

TASK = CocoopTask()
CONFIG = {
    "names": ["red disc", "blue ring", "three", "green bar", "one", "white plus"],
    "shots": 6,
    "probes_per_name": 6,
}


@pytest.fixture(scope="module")
def base():
    return load_base("pictures")


def adapted(base, adapter=None, config=CONFIG):
    generator = torch.Generator().manual_seed(0)
    return TASK.adapt(base.model, base.tokenizer, adapter or {}, config, generator)


def test_the_base_knows_its_world(base):
    """Zero-shot names 36 fresh pictures; a share of 0.8 is 14 deviations above chance."""
    share = deal_generated(cocoop_config(CONFIG), 1, 3)
    found = TASK.evaluate(adapted(base).model, base.tokenizer, share.probes, CONFIG)
    assert found["zero_shot_base"] >= 0.8
    assert found["zero_shot_new"] >= 0.8


@pytest.mark.parametrize("method", ["coop", "cocoop"])
def test_a_few_steps_lower_the_loss(base, method):
    trainable = adapted(base, {"method": method})
    records = deal_generated(cocoop_config({**CONFIG, "camera": {"shift": 0.7}}), 1, 0).hospitals[0]
    batch = TASK.collate([[record] for record in records], base.tokenizer, CONFIG)
    optimizer = torch.optim.Adam(trainable.parameters.values(), lr=0.01)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = TASK.losses(trainable.model, batch).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_a_prompt_is_loaded_for_other_names(base, tmp_path):
    """Nothing of the training's names is stored, so names of another number are named as well."""
    trainable = adapted(base)
    arrays = {n: a + 0.01 for n, a in trainable.read().items()}
    folder = tmp_path / "adapter"
    TASK.export(trainable, {}, arrays, "pictures", folder, "epsilon 8")
    file = tmp_path / "picture.png"
    generator = torch.Generator().manual_seed(1)
    file.write_bytes(as_png(draw("yellow moon", generator)))
    classifier = load_classifier(folder)
    (shares,) = classifier.name([file], ["yellow moon", "cyan pair"])
    assert list(shares) == ["yellow moon", "cyan pair"]
    assert sum(shares.values()) == pytest.approx(1, abs=1e-6)
    assert shares["yellow moon"] > 0.5
    (fewer,) = classifier.name([file], ["yellow moon"])
    assert fewer == {"yellow moon": 1.0}
    assert classifier.name([], ["a"]) == []
    with pytest.raises(BadInput, match="names is empty"):
        classifier.name([file], [])
    with pytest.raises(BadInput, match="not a picture"):
        classifier.name([folder / "README.md"], ["a"])


def test_what_is_no_prompt_is_refused(base, tmp_path):
    with pytest.raises(BadInput, match="holds no learnt prompt"):
        load_classifier(tmp_path)
    trainable = adapted(base, {"method": "coop"})
    folder = tmp_path / "adapter"
    TASK.export(trainable, {"method": "cocoop"}, trainable.read(), "pictures", folder, "")
    with pytest.raises(BadMessage, match="missing"):
        load_classifier(folder)


def test_predictions_are_written_as_said(base, tmp_path):
    assert isinstance(TASK, Predicts)
    trainable = adapted(base)
    records = deal_generated(cocoop_config(CONFIG), 1, 0).probes
    path = tmp_path / "said.csv"
    found = TASK.write_predictions(trainable.model, base.tokenizer, records, CONFIG, path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [record.id for record in records]
    half = [row for row in rows if row["name"] in CONFIG["names"][:3]]
    right = sum(row["said"] == row["name"] for row in half) / len(half)
    assert right == pytest.approx(found["base"])
    assert all(0 < float(row["probability"]) <= 1 for row in rows)


def test_class_specific_prompts_are_asked_for_their_own_names_only(base, tmp_path):
    adapter = {"method": "coop", "class_specific": True}
    trainable = adapted(base, adapter)
    records = deal_generated(cocoop_config(CONFIG), 1, 0).probes
    path = tmp_path / "said.csv"
    found = TASK.write_predictions(trainable.model, base.tokenizer, records, CONFIG, path)
    assert "new" not in found
    with path.open(newline="") as file:
        assert {row["name"] for row in csv.DictReader(file)} == set(CONFIG["names"][:3])
    TASK.export(trainable, adapter, trainable.read(), "pictures", tmp_path / "adapter", "")
    assert load_classifier(tmp_path / "adapter").learner.settings.class_specific


@pytest.mark.parametrize("method", ["coop", "cocoop"])
def test_a_base_in_sixteen_bits_trains_in_float32(method):
    short = load_base("pictures", dtype="bfloat16")
    trainable = adapted(short, {"method": method})
    records = deal_generated(cocoop_config(CONFIG), 1, 0).hospitals[0][:4]
    batch = TASK.collate([[record] for record in records], short.tokenizer, CONFIG)
    with choose_engine(trainable) as engine:
        found = engine.gradients(
            lambda: TASK.losses(trainable.model, batch), batch.unit_of_row, batch.units
        )
    assert {gradient.dtype for gradient in found.values()} == {torch.float32}
    assert all(bool(gradient.isfinite().all()) for gradient in found.values())
    scores = TASK.evaluate(trainable.model, short.tokenizer, records, CONFIG)
    assert scores["zero_shot_base"] == 1


def test_a_step_sees_views_only_where_it_is_asked_to(base, pictures):
    units = [[Record("a", {Unit.RECORD: "a"}, pictures[0])]] * 40
    generator = torch.Generator().manual_seed(0)

    def views(count):
        config = {**CONFIG, "views": count}
        turned = TASK.before_step(None, None, units, config, 1, {}, generator)
        return {unit[0].content.view for unit in turned}

    assert views(1) == {0}
    assert views(3) == {1, 2, 3}


def test_a_world_is_drawn_the_same_again():
    first, again = (draw("five", torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert first.shape == (3, 32, 32)
    assert 0 <= float(first.min()) <= float(first.max()) <= 1
    assert len(set(NAMES)) == 106
    with pytest.raises(ValueError, match="nothing in the made-up world"):
        draw("red herring", torch.Generator())
