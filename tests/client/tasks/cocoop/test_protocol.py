"""Base and new names, averages, hospitals' names, and the figures of an evaluation."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.client.schedules import Per, Schedule, Shape
from wardround.client.tasks.cocoop.config import CocoopConfig, base_and_new
from wardround.client.tasks.cocoop.dealing import deal_generated, hospitals_of
from wardround.client.tasks.cocoop.evaluation import (
    averages,
    evaluate_names,
    harmonic_mean,
    macro_auroc,
    macro_f1,
)
from wardround.client.tasks.cocoop.task import CocoopTask
from wardround.privacy.errors import BadInput

# Zhou et al. (2022), CoCoOp, table 1: base and new accuracy, ViT-B/16, 16 shots, three seeds.
TABLE = {
    "CLIP": [(72.43, 68.14), (96.84, 94.00), (91.17, 97.26), (63.37, 74.89), (72.08, 77.80),
             (90.10, 91.22), (27.19, 36.29), (69.36, 75.35), (53.24, 59.90), (56.48, 64.05),
             (70.53, 77.50)],
    "CoOp": [(76.47, 67.88), (98.00, 89.81), (93.67, 95.29), (78.12, 60.40), (97.60, 59.67),
             (88.33, 82.26), (40.44, 22.30), (80.60, 65.89), (79.44, 41.18), (92.19, 54.74),
             (84.69, 56.05)],
    "CoCoOp": [(75.98, 70.43), (97.96, 93.81), (95.20, 97.69), (70.49, 73.59), (94.87, 71.75),
               (90.70, 91.29), (33.41, 23.71), (79.74, 76.86), (77.01, 56.00), (87.49, 60.04),
               (82.33, 73.45)],
}  # fmt: skip
PUBLISHED = {"CLIP": 71.70, "CoOp": 71.66, "CoCoOp": 75.83}
MEAN_OF_ROWS = {"CLIP": 71.59, "CoOp": 70.83, "CoCoOp": 75.44}


@pytest.mark.parametrize("method", TABLE)
def test_the_published_average_is_the_harmonic_mean_of_column_means(method):
    found = averages([{"base": base, "new": new} for base, new in TABLE[method]])
    assert round(found["h"], 2) == pytest.approx(PUBLISHED[method], abs=0.011)
    assert round(found["mean_h"], 2) == pytest.approx(MEAN_OF_ROWS[method], abs=0.011)


def test_harmonic_mean():
    assert harmonic_mean(0.5, 0.25) == pytest.approx(1 / 3)
    assert harmonic_mean(0.0, 0.0) == 0.0


def test_five_names_are_three_and_two():
    base, new = base_and_new(["e", "d", "c", "b", "a"])
    assert (base, new) == (("e", "d", "c"), ("b", "a"))


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 40))
def test_halves_are_disjoint_and_whole(count):
    names = [str(number) for number in range(count)]
    base, new = base_and_new(names)
    assert [*base, *new] == names
    assert len(base) == math.ceil(count / 2)


def test_the_rate_is_the_published_one():
    """Oracle: torch's cosine over ten epochs, begun after one epoch at 1e-5."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.002)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    wanted = [1e-5]
    for _ in range(9):
        wanted += cosine.get_last_lr()
        optimizer.step()
        cosine.step()
    schedule = Schedule(Shape.COSINE, Per.ROUND, warmup=1, warmup_share=0.005, whole=True)
    found = [0.002 * schedule.factor(epoch, 10, 1, 7) for epoch in range(1, 11)]
    assert found == pytest.approx(wanted, rel=1e-12)
    assert {schedule.factor(4, 10, step, 7) for step in range(1, 8)} == {found[3] / 0.002}


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 30), st.integers(1, 8), st.integers(1, 30), st.integers(0, 99))
def test_hospitals_together_have_all_names(count, hospitals, each, seed):
    names = tuple(str(number) for number in range(count))
    base = base_and_new(names)[0]
    config = CocoopConfig(names=names, names_per_hospital=min(each, len(base)))
    if config.names_per_hospital * hospitals < len(base):
        with pytest.raises(BadInput, match="would not have all"):
            hospitals_of(config, hospitals, seed)
        return
    who = hospitals_of(config, hospitals, seed)
    assert set(who) == set(base)
    assert all(who.values())
    for place in range(hospitals):
        assert sum(place in places for places in who.values()) == config.names_per_hospital


def test_generated_hospitals_have_some_base_names_and_probes_all(names):
    config = CocoopConfig(names=names, shots=3, names_per_hospital=2, probes_per_name=4)
    share = deal_generated(config, 2, 1)
    for records in share.hospitals:
        held = [record.content.name for record in records]
        assert len(set(held)) == 2
        assert len(held) == 6
        assert set(held) <= set(config.base)
    assert {r.content.name for r in share.probes} == set(names)
    assert len(share.probes) == 20


def test_base_competes_with_base_and_new_with_new(clip, tokenizer, pictures, names):
    """Oracle: argmax over each half's own names, by hand."""
    config = CocoopConfig(names=names)
    task = CocoopTask()
    table = {"names": list(names)}
    trainable = task.adapt(clip, tokenizer, {}, table, torch.Generator().manual_seed(0))
    learner = trainable.model
    found = evaluate_names(learner, pictures, config)
    for half, own in (("base", config.base), ("new", config.new)):
        some = [p for p in pictures if p.name in own]
        said = learner.predict(some, own, config.image).argmax(1).tolist()
        right = sum(own[s] == p.name for s, p in zip(said, some, strict=True))
        assert found[half] == right / len(some)
    assert found["h"] == harmonic_mean(found["base"], found["new"])
    assert "new" not in evaluate_names(learner, pictures[:3], config)


def test_f1_and_auroc_by_hand():
    """Said 0 0 1, true 0 1 1: F1 is 2/3 of both names. Scores 2 > 1 > 0: one of two pairs right."""
    logits = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert macro_f1(logits, torch.tensor([0, 1, 1])) == pytest.approx(2 / 3)
    assert macro_auroc(logits, torch.tensor([0, 1, 1])) == 1.0
    assert macro_auroc(logits, torch.tensor([1, 0, 1])) == 0.5
    assert macro_auroc(torch.zeros(3, 2), torch.tensor([1, 0, 1])) == 0.5
    assert macro_auroc(logits, torch.tensor([1, 1, 1])) == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ["a"]}, "names must hold two"),
        ({"names": ["a", "a"]}, "holds a name twice"),
        ({"shots": 0}, "shots is 0"),
        ({"names_per_hospital": 9}, "names_per_hospital is 9"),
        ({"templates": ["no place"]}, "templates must hold"),
        ({"image": {"std": [1.0, 1.0]}}, "std has 2 numbers"),
        ({"camera": {"shift": 2.0}}, "shift is 2.0"),
    ],
)
def test_settings_name_what_is_wrong(change, message):
    with pytest.raises(BadInput, match=message):
        CocoopTask().check({"names": ["a", "b"], **change})
