"""Bases that are taught answers: what their texts say, and the same base twice."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from wardround.client.bases import build_orders, build_requests
from wardround.client.bases.making import Shape
from wardround.client.bases.teaching import Course
from wardround.client.models import load_base
from wardround.client.pinned import WEIGHTS
from wardround.client.tasks.dro.anchors import load_anchors
from wardround.client.tasks.pacit.generated import HELD_OUT_TASKS, HOSPITAL_TASKS
from wardround.privacy.signing import sha256

SMALL = Shape(hidden=16, layers=1, heads=2, mlp=16)
SHORT = Course(steps=2, batch=4)


@pytest.mark.statistical
def test_the_orders_base_reads_every_template_and_learns_nothing_of_verdicts():
    """600 fair coins stray from half by 5 deviations with probability 6e-7."""
    said = build_orders.texts(build_orders.OrdersRecipe(instances=900))
    prompts = [asked for asked, _, _ in said]
    icit = [asked for asked in prompts if " Positive Example 1 -" in asked]
    pacit = [(asked, verdict) for asked, verdict, _ in said if " Example 2 -" in asked]
    assert (len(icit), len(pacit)) == (300, 300)
    assert {bool(verdict) for _, verdict in pacit} == {True}
    assert sum(bool(verdict) for _, verdict, _ in said) == 300
    stated = [verdict.partition("I would")[0].replace(",", " ") for _, verdict in pacit]
    words = ["correct" in part for text in stated for part in text.rstrip(". ").split(" and ")]
    assert len(words) == 600
    assert abs(sum(words) - 300) < 5 * math.sqrt(150)
    for fields in (*HOSPITAL_TASKS, *HELD_OUT_TASKS):
        definition = f"Write its {', then its '.join(fields)}."
        assert not any(definition in asked for asked in prompts)


def test_the_orders_recipe_is_repeatable(tmp_path):
    recipe = build_orders.OrdersRecipe(
        shape=SMALL, vocabulary=320, instances=60, reading=SHORT, prompts=SHORT
    )
    before = torch.random.get_rng_state()
    made = [build_orders.build(recipe, tmp_path / name, lambda line: None) for name in "ab"]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert made[0]["sha256"] == made[1]["sha256"]
    assert load_base(str(tmp_path / "a" / "orders")).sha256 == made[0]["sha256"]
    other = build_orders.build(replace(recipe, seed=1), tmp_path / "c", lambda line: None)
    assert other["sha256"] != made[0]["sha256"]


def test_the_requests_recipe_makes_base_and_anchors(tmp_path):
    recipe = build_requests.RequestsRecipe(
        shape=SMALL, vocabulary=320, replies=90, course=SHORT, public=12, samples=2
    )
    made = [
        build_requests.build(
            recipe, tmp_path / name, tmp_path / name / "anchors", lambda line: None
        )
        for name in "ab"
    ]
    for name in ("sha256", "anchors_sha256"):
        assert made[0][name] == made[1][name]
    anchors = tmp_path / "a" / "anchors" / "requests"
    assert sha256((anchors / WEIGHTS).read_bytes()) == made[0]["anchors_sha256"]
    assert load_anchors(str(anchors), made[0]["anchors_sha256"]).mean.shape == (16,)
    assert load_base(str(tmp_path / "a" / "requests")).tokenizer.chat_template
