"""Every kind of net: exact per-unit gradients, ESMM's product, what stays frozen."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from wardround.client.tasks.pwiser.columns import PROGRAMMES
from wardround.client.tasks.pwiser.config import NetConfig, NetKind
from wardround.client.tasks.pwiser.nets import CLICK, CONVERSION, Net, _both, draw_values
from wardround.client.tasks.pwiser.ranker import attach

KINDS = [kind.value for kind in NetKind]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_exact_gradients(kind, case, all_checks) -> None:
    one = case("pwiser")
    one = replace(one, adapter={**one.adapter, "kind": kind, "train_embedding": False})
    all_checks["engines_agree_with_autograd"](one)
    all_checks["nothing_couples_units"](one)


@pytest.mark.parametrize(
    "pairwise",
    [
        {"form": "anchors", "surrogate": "logistic", "head": "conversion"},
        {"form": "square", "surrogate": "square"},
        {"form": "within", "score": "logit", "margin_skip": 2.0},
    ],
)
def test_every_form_has_exact_gradients(pairwise, case, all_checks) -> None:
    one = case("pwiser")
    one = replace(one, config={**one.config, "pairwise": pairwise})
    all_checks["engines_agree_with_autograd"](one)
    all_checks["removing_a_unit_moves_the_clipped_sum_by_the_clip_norm_at_most"](one)


def test_strength_zero_is_cross_entropy_bit_for_bit(case) -> None:
    one = case("pwiser")
    plain = replace(one, config={**one.config, "pairwise": {"strength": 0.0}})
    trainable = one.adapted()
    batch = one.task.collate(one.units, None, one.config)
    logits = trainable.model(batch.inputs["categorical"], batch.inputs["numerical"])
    rows = sum(
        torch.nn.functional.binary_cross_entropy_with_logits(
            logits[:, place], batch.inputs[name].double(), reduction="none"
        )
        for place, name in ((CLICK, "click"), (CONVERSION, "conversion"))
    )
    wanted = torch.stack([rows[batch.unit_of_row == unit].mean() for unit in range(batch.units)])
    torch.testing.assert_close(plain.losses(trainable, one.units), wanted, rtol=1e-14, atol=0)
    assert not torch.equal(one.losses(trainable, one.units), wanted)


def test_esmm_multiplies_both_chances_even_where_they_are_extreme() -> None:
    logits = torch.tensor([[0.3, -1.2], [40.0, 40.0], [-60.0, 2.0]], dtype=torch.float64)
    found = _both(logits)
    product = logits.sigmoid().prod(1)
    torch.testing.assert_close(found[:1, 1].sigmoid(), product[:1])
    # By 1 - ab = (1 - a) + a (1 - b): both nearly certain leaves 2 e^-40, a rare click rules.
    assert float(found[1, 1]) == pytest.approx(40 - math.log(2), abs=1e-9)
    assert float(found[2, 1]) == pytest.approx(-60 - 0.126928, abs=1e-5)
    assert torch.isfinite(found).all()


def test_square_form_seeks_the_least_and_alpha_the_most(case) -> None:
    one = case("pwiser")
    config = {**one.config, "pairwise": {"form": "square", "surrogate": "square"}}
    trainable = replace(one, config=config).adapted()
    weight = trainable.parameters["saddle.weight"]
    losses = replace(one, config=config).losses(trainable, one.units)
    (turned,) = torch.autograd.grad(losses.sum(), weight)
    values = trainable.model.saddle.weight.detach().clone()
    step = 1e-6
    for number in range(6):
        moved = []
        for sign in (1, -1):
            with torch.no_grad():
                weight.copy_(values)
                weight[number] += sign * step
            moved.append(
                float(replace(one, config=config).losses(trainable, one.units).detach().sum())
            )
        slope = (moved[0] - moved[1]) / (2 * step)
        sign = -1 if number % 3 == 2 else 1
        assert float(turned[number]) == pytest.approx(sign * slope, rel=1e-5, abs=1e-7)


def test_tables_stay_frozen_unless_asked_and_values_are_public() -> None:
    base = torch.nn.Module()
    made = [
        attach(base, PROGRAMMES, NetConfig(), False, torch.Generator().manual_seed(4))
        for _ in range(2)
    ]
    assert "net.features.table.weight" not in made[0].parameters
    state = [trainable.model.state_dict() for trainable in made]
    assert all(torch.equal(state[0][name], state[1][name]) for name in state[0])
    opted = NetConfig(train_embedding=True)
    trainable = attach(base, PROGRAMMES, opted, False, torch.Generator().manual_seed(4))
    assert "net.features.table.weight" in trainable.parameters


def test_frozen_tables_are_the_same_at_every_house(case, all_checks) -> None:
    """They once followed the study's seed, which only the coordinator knows."""
    one = case("pwiser")
    frozen = replace(one, adapter={**one.adapter, "train_embedding": False})
    all_checks["what_does_not_train_is_the_same_everywhere"](frozen)


def test_no_kind_has_batch_norm_or_an_unused_parameter() -> None:
    for kind in NetKind:
        net = Net(PROGRAMMES, NetConfig(kind=kind, train_embedding=True)).double()
        draw_values(net, torch.Generator().manual_seed(1))
        assert not any("BatchNorm" in type(module).__name__ for module in net.modules())
        logits = net(torch.zeros(3, 5, dtype=torch.long), torch.ones(3, 3).double())
        found = torch.autograd.grad(logits.square().sum(), list(net.parameters()))
        assert all(gradient is not None for gradient in found)
