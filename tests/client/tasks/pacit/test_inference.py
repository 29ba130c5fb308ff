"""Verdicts learnt, said and forced, on the embedded base with a few rows."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from wardround.client.lora import AdapterConfig, attach_lora
from wardround.client.models import embedded_bases, load_base
from wardround.client.tasks.pacit.config import PacitConfig, Way
from wardround.client.tasks.pacit.evaluation import ask, evaluate_answers, questions
from wardround.client.tasks.pacit.generated import HOSPITAL_TASKS, PackShape, make_pack
from wardround.client.tasks.pacit.records import Instance
from wardround.client.tasks.pacit.task import PacitTask
from wardround.client.tasks.pacit.templates import Style, verdict

TARGETS = ("mlp.down_proj", "mlp.up_proj", "self_attn.q_proj", "self_attn.o_proj")
CONFIG = PacitConfig(max_length=256, max_tokens=48)
TABLE = {"max_length": 256, "max_tokens": 48}


@pytest.fixture(scope="module")
def rows():
    """Two rows of each of four tasks; a task's pool is fixed: one right exemplar, one wrong."""
    shares, _ = make_pack(PackShape(instances=2, exemplars=1, probes=1), 1, seed=3)
    return shares[0][: 2 * 4]


@pytest.fixture(scope="module")
def trained(rows):
    """The base with an adapter that has seen these rows fifty times, and its losses on the way."""
    base = load_base("orders", sha256=embedded_bases()["orders"])
    generator = torch.Generator().manual_seed(0)
    trainable = attach_lora(base.model, AdapterConfig(TARGETS, 16, 32.0), generator)
    batch = PacitTask().collate([[row] for row in rows], base.tokenizer, TABLE)
    optimizer = torch.optim.Adam(trainable.parameters.values(), lr=0.01)
    losses = []
    for _ in range(50):
        loss = PacitTask().losses(trainable.model, batch).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    yield trainable.model, base.tokenizer, losses
    trainable.detach()


def test_rows_of_a_fixed_pool_are_learnt_with_their_verdicts(trained, rows):
    """Memorised, not understood: a fixed pool says nothing about judging new examples."""
    model, tokenizer, losses = trained
    assert losses[-1] < losses[0] / 5
    found = evaluate_answers(model, tokenizer, rows, CONFIG)
    assert found["verdict_accuracy"] > 0.9
    assert found["format_rate"] == 1.0
    assert found["few_exact"] > 0.5
    assert found["verdict_loss"] < 0.5
    assert {"few_rouge_l", "zero_rouge_l", "zero_exact", "answer_loss"} <= found.keys()


def test_a_forced_verdict_gives_what_the_same_own_verdict_gives(trained, rows):
    """Greedy from the same prefix is the same; where the own verdict differs, nothing is said."""
    model, tokenizer, _ = trained
    own = ask(model, tokenizer, questions(rows, tokenizer, CONFIG, True), CONFIG)
    forced = replace(CONFIG, inference=Way.FORCED)
    made = ask(model, tokenizer, questions(rows, tokenizer, forced, True), forced)
    agreeing = [
        (mine, other)
        for mine, other in zip(own, made, strict=True)
        if mine.reply.strip().startswith(other.forced.strip())
    ]
    assert len(agreeing) > len(rows) / 2
    for mine, other in agreeing:
        assert mine.answer.strip() == other.answer.strip()


def test_random_verdicts_are_forced_even_without_exemplars(rows):
    tokenizer = load_base("orders").tokenizer
    config = replace(CONFIG, inference=Way.RANDOM)
    many = [replace(row, id=f"{row.id}-{n}") for row in rows for n in range(20)]
    for few_shot in (True, False):
        said = {asked.forced for asked in questions(many, tokenizer, config, few_shot)}
        assert said == {verdict([a, b]) for a in (True, False) for b in (True, False)}
    assert {one.forced for one in questions(rows, tokenizer, CONFIG, True)} == {""}
    icit = replace(config, style=Style.ICIT)
    assert {one.forced for one in questions(rows, tokenizer, icit, True)} == {""}


def test_scores_by_category(trained):
    model, tokenizer, _ = trained
    _, probes = make_pack(PackShape(instances=1, exemplars=2, probes=1), 1, seed=4)
    found = evaluate_answers(model, tokenizer, probes, CONFIG)
    held_in = len(HOSPITAL_TASKS)
    for name in ("few_exact", "zero_rouge_l"):
        both = [found[f"{name}_{category}"] for category in ("held_in", "held_out")]
        mean = (held_in * both[0] + (len(probes) - held_in) * both[1]) / len(probes)
        assert found[name] == pytest.approx(mean)


def test_predictions_are_written_with_their_references(trained, rows, tmp_path):
    model, tokenizer, _ = trained
    path = tmp_path / "said.jsonl"
    PacitTask().write_predictions(model, tokenizer, rows[:2], TABLE, path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["id"] for line in lines] == [row.id for row in rows[:2]]
    content: Instance = rows[0].content
    assert lines[0]["references"] == list(content.outputs)
    assert lines[0]["reply"].endswith(lines[0]["answer"])


def test_a_task_s_loss_is_the_sum_of_its_rows(trained, rows):
    model, tokenizer, _ = trained
    task = PacitTask()
    with torch.no_grad():
        apart = task.losses(model, task.collate([[row] for row in rows], tokenizer, TABLE))
        (whole,) = task.losses(model, task.collate([rows], tokenizer, TABLE))
    torch.testing.assert_close(whole, apart.sum())
