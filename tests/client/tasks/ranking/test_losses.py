"""List losses and their per-unit gradients, against loops written from the formulas."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from wardround.client.engine import choose_engine
from wardround.client.tasks.ranking.losses import (
    Loss,
    Score,
    list_losses,
    listwise,
    pointwise,
    ranknet,
    reference_kl,
    table_of,
)
from wardround.client.tasks.ranking.rows import encode

LISTS = [[-1.0, -2.5, -0.5, -3.0], [-0.2, -0.3], [-4.0, -1.0, -1.0]]


def _table():
    scores = torch.tensor([score for scores in LISTS for score in scores], dtype=torch.float64)
    lists = torch.tensor([n for n, scores in enumerate(LISTS) for _ in scores])
    place = torch.tensor([p for scores in LISTS for p in range(len(scores))])
    return table_of(scores, lists, place, len(LISTS))


def _softmax(scores, temperature):
    total = sum(math.exp(s / temperature) for s in scores)
    return -math.log(math.exp(scores[0] / temperature) / total)


def _ranknet(scores, temperature):
    terms = [math.log(1 + math.exp(-(scores[0] - s) / temperature)) for s in scores[1:]]
    return sum(terms) / len(terms)


def _pointwise(scores):
    terms = [-scores[0], *(-math.log(1 - math.exp(s)) for s in scores[1:])]
    return sum(terms) / len(terms)


def _logits(scores, temperature):
    def sigmoid(x):
        return 1 / (1 + math.exp(-x / temperature))

    terms = [-math.log(sigmoid(scores[0])), *(-math.log(1 - sigmoid(s)) for s in scores[1:])]
    return sum(terms) / len(terms)


@pytest.mark.parametrize("temperature", [0.25, 1.0])
@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (lambda t, c: listwise(t, c), _softmax),
        (lambda t, c: ranknet(t, c), _ranknet),
        (lambda t, c: pointwise(t, c, likelihood=True), lambda s, c: _pointwise(s)),
        (lambda t, c: pointwise(t, c, likelihood=False), _logits),
        (
            lambda t, c: list_losses(Loss.LISTWISE, Score.PROBABILITY, c, t, likelihood=True),
            lambda s, c: _softmax([math.exp(x) for x in s], c),
        ),
        (
            lambda t, c: list_losses(Loss.RANKNET, Score.LOG_PROBABILITY, c, t, likelihood=True),
            _ranknet,
        ),
    ],
    ids=["listwise", "ranknet", "pointwise", "pointwise-head", "published-score", "chosen"],
)
def test_losses_are_their_formulas(found, wanted, temperature):
    values = found(_table(), temperature).tolist()
    assert values == pytest.approx([wanted(scores, temperature) for scores in LISTS], rel=1e-12)


def test_published_temperature_stays_finite():
    table = _table().requires_grad_()
    losses = list_losses(Loss.LISTWISE, Score.PROBABILITY, 0.001, table, likelihood=True)
    losses.sum().backward()
    assert bool(torch.isfinite(losses).all())
    assert bool(torch.isfinite(table.grad).all())


def test_difference_penalty_is_the_divergence_from_the_reference():
    generator = torch.Generator().manual_seed(1)
    now, then = (torch.randn(3, 4, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    real = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 0, 0]]).bool()
    found = reference_kl(now, then, real)
    for row in range(3):
        # Oracle: torch's own divergence, as the released code calls it, over real places alone.
        kept = real[row]
        wanted = functional.kl_div(
            now[row, kept].log_softmax(-1), then[row, kept].softmax(-1), reduction="batchmean"
        )
        assert float(found[row]) == pytest.approx(float(wanted), rel=1e-12)
    assert float(reference_kl(now, now, real).abs().max()) < 1e-15


def _unit_loss_by_hand(case, trainable, reference, unit):
    """A unit's loss from the formulas, one row a forward pass, without any shared code."""
    config, tokenizer = case.config, case.tokenizer

    def log_probabilities(model, row):
        prompt, query = row
        ids = torch.tensor([[*prompt, *query]])
        logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
        return logits.log_softmax(-1), torch.tensor(query)

    total = torch.zeros((), dtype=torch.float64)
    for record in unit:
        group = record.content.training_list(config["group"])
        scores, penalties = [], []
        for candidate in group:
            row = encode(tokenizer, candidate.text, record.content.text, 64, 12)
            logs, query = log_probabilities(trainable.model, row)
            scores.append(logs.gather(1, query.unsqueeze(1)).mean())
            with torch.no_grad():
                then, _ = log_probabilities(reference, row)
            penalties.append((then.exp() * (then - logs)).sum(-1).mean())
        if not group:
            continue
        temperature = config.get("temperature", 0.25)
        logits = torch.stack(scores) / temperature
        total = total - logits[0] + logits.logsumexp(0)
        total = total - config["ntp_weight"] * scores[0]
        total = total + config["reference_kl_weight"] * torch.stack(penalties).mean()
    return total


def test_per_unit_gradient_of_the_list_loss_equals_loops(case):
    case = case("ranking")
    trainable, reference = case.adapted(), case.model()
    batch = case.task.collate(case.units, case.tokenizer, case.config)
    with choose_engine(trainable, "fused") as engine:
        found = engine.gradients(
            lambda: case.task.losses(trainable.model, batch), batch.unit_of_row, batch.units
        )
    losses = case.task.losses(trainable.model, batch)
    parameters = list(trainable.parameters.values())
    for place, unit in enumerate(case.units):
        loss = _unit_loss_by_hand(case, trainable, reference, unit)
        assert float(losses[place].detach()) == pytest.approx(float(loss.detach()), abs=1e-10)
        if not loss.requires_grad:  # the list without a relevant passage
            assert all(not bool(rows[place].any()) for rows in found.values())
            continue
        wanted = torch.autograd.grad(loss, parameters)
        for name, gradient in zip(trainable.parameters, wanted, strict=True):
            torch.testing.assert_close(found[name][place], gradient, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("loss", ["listwise", "ranknet", "pointwise"])
@pytest.mark.parametrize("scorer", ["likelihood", "head"])
def test_every_loss_and_scorer_keeps_units_apart(case, all_checks, loss, scorer):
    config = {"max_length": 64, "max_query": 12, "loss": loss, "scorer": scorer, "group": 3}
    twin = replace(case("ranking"), config={**case("ranking").config, **config, "ntp_weight": 0.0,
                                            "reference_kl_weight": 0.0})  # fmt: skip
    for name in (
        "nothing_couples_units",
        "engines_agree_with_autograd",
        "removing_a_unit_moves_the_clipped_sum_by_the_clip_norm_at_most",
    ):
        all_checks[name](twin)
