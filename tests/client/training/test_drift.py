"""FedProx and SCAFFOLD at a hospital: closed forms, and that neither is clipped or charged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from wardround.client.change_noise import change_deviation
from wardround.client.schedules import Schedule, Shape
from wardround.client.training import TrainingConfig
from wardround.privacy.adaptive import AdaptiveClip
from wardround.privacy.errors import LedgerError
from wardround.privacy.events import primitive_counts
from wardround.privacy.plan import Mechanism, Mode, PrivacyPlan
from wardround.privacy.stream import SecureStream
from wardround.privacy.units import Unit

RATE = 0.1
PLAN = PrivacyPlan(Unit.RECORD, 1.0, 1.0, 1.0, 4, 20.0)
BARE = replace(PLAN, mode=Mode.NONE, noise_multiplier=0.0)
UPDATE = PrivacyPlan(Unit.SITE, 1.0, 1.0, 1.0, 3, 1.0, mechanism=Mechanism.WHOLE_UPDATE)


def sgd(**settings: Any) -> TrainingConfig:
    return TrainingConfig(learning_rate=RATE, optimizer="sgd", **settings)


def ascend(lab: Any, mu: float, corrections: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same steps by hand: all records every step, autograd, float64."""
    from copy import deepcopy

    net = deepcopy(lab.trainable.model).double()
    weights = dict(zip(lab.names, net.parameters(), strict=True))
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(lab.start[name])
    units = list(lab.round(BARE).units)
    x = torch.stack([record.content[0] for unit in units for record in unit]).double()
    y = torch.tensor([record.content[1] for unit in units for record in unit]).double()
    for _ in range(BARE.steps):
        loss = (net(x)[:, 0] - y).square().sum() / BARE.expected_units
        gradients = torch.autograd.grad(loss, list(weights.values()))
        with torch.no_grad():
            for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
                pull = mu * (weight - lab.start[name])
                weight -= RATE * (gradient + corrections.get(name, 0) + pull)
    return {name: weight.detach() - lab.start[name] for name, weight in weights.items()}


def correction_of(lab: Any) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(4)
    return {n: torch.randn(s, generator=generator) for n, s in lab.trainable.shapes.items()}


@pytest.mark.parametrize(
    ("mu", "corrected"), [(0.0, False), (0.7, False), (0.0, True), (0.7, True)]
)
def test_steps_are_those_of_the_papers(lab: Any, mu: float, corrected: bool) -> None:
    corrections = correction_of(lab) if corrected else {}
    change = lab.train(BARE, training=sgd(proximal_mu=mu), corrections=corrections)
    expected = ascend(lab, mu, corrections)
    for name, array in change.value.items():
        assert torch.allclose(array.double(), expected[name], rtol=0, atol=1e-5)  # float32, 4 steps


def test_a_strong_pull_keeps_the_change_small(lab: Any) -> None:
    free = lab.train(BARE, training=sgd()).value
    held = lab.train(BARE, training=sgd(proximal_mu=5.0)).value
    assert sum(float(a.norm()) for a in held.values()) < 0.7 * sum(
        float(a.norm()) for a in free.values()
    )


@pytest.mark.parametrize("plan", [PLAN, UPDATE])
def test_nothing_more_is_charged(lab: Any, plan: PrivacyPlan) -> None:
    """Both are functions of public and noised values."""
    change = lab.train(plan, training=sgd(proximal_mu=0.5), corrections=correction_of(lab))
    assert primitive_counts(change.event) == primitive_counts(plan.event)


def test_a_control_of_its_own_would_be_a_second_release(lab: Any) -> None:
    """The broken twin of SCAFFOLD as it is here: change and control each clipped and noised."""
    reservation = lab.reserve(UPDATE)
    lab.train(UPDATE, training=sgd(), reservation=reservation)
    with pytest.raises(LedgerError, match="charged no more"):
        lab.train(UPDATE, training=sgd(), reservation=reservation)


def test_a_correction_takes_no_room_in_the_clip(lab: Any) -> None:
    """A correction of length 30 goes through in full, though no gradient longer than 1 does.

    The broken twin would add it before the clip: the step would be 0.1 * 1 long at most, and
    noise. Here it is 0.1 * 30 beside noise of 0.1 / 20 a number and a clipped mean of 1 at most.
    """
    direction = torch.ones(lab.start[lab.names[0]].shape) / 6**0.5
    plan = replace(PLAN, steps=1)
    change = lab.train(plan, training=sgd(), corrections={lab.names[0]: 30.0 * direction})
    along = float((change.value[lab.names[0]] * direction).sum())
    assert abs(along + RATE * 30.0) < RATE * (1.0 + 10 / 20)


def test_the_noise_in_a_change_in_closed_form() -> None:
    """Noise of a step is s = 2 / 20; what it has become after j more steps, squared and summed."""
    plan, step = replace(PLAN, noise_multiplier=2.0, steps=5), RATE * 2.0 / 20

    def expected(*responses: float) -> float:
        return step * sum(r**2 for r in responses) ** 0.5

    assert change_deviation(plan, sgd()) == pytest.approx(expected(1, 1, 1, 1, 1))
    pulled = expected(*((1 - RATE * 2.0) ** j for j in range(5)))
    assert change_deviation(plan, sgd(proximal_mu=2.0)) == pytest.approx(pulled)
    rolling = expected(*((1 - 0.5**j) / (1 - 0.5) for j in range(1, 6)))
    assert change_deviation(plan, sgd(momentum=0.5)) == pytest.approx(rolling)
    assert change_deviation(plan, sgd(weight_decay=2.0)) == pytest.approx(pulled)
    resting = change_deviation(plan, sgd(), moves=[True, False, True, False, True])
    assert resting == pytest.approx(expected(1, 1, 1))


@pytest.mark.statistical
def test_the_noise_in_a_change_is_as_computed(lab: Any) -> None:
    """No records, so every step is noise alone: momentum, pull and all, 60 rounds of 8 numbers.

    The mean of 480 squares of a normal varies by sqrt(2 / 480) = 6.5 %; the bound is 5.5 of those,
    false alarms below 1e-7. Without momentum the variance would be a third of it.
    """
    training = sgd(momentum=0.5, proximal_mu=2.0)
    plan = replace(PLAN, noise_multiplier=2.0, steps=5)
    stream = SecureStream(b"a key for this test, 32 bytes..."[:32])
    squares: list[float] = []
    for _ in range(60):
        change = lab.train(plan, units=[], training=training, stream=stream).value
        squares += [float(x) ** 2 for array in change.values() for x in array.flatten()]
    deviation = change_deviation(plan, training)
    without = change_deviation(plan, sgd(proximal_mu=2.0))
    assert deviation is not None
    assert without is not None
    assert sum(squares) / len(squares) == pytest.approx(deviation**2, rel=0.36)
    assert deviation**2 > 2 * without**2


def test_what_is_known_of_the_noise() -> None:
    assert change_deviation(UPDATE, sgd()) == 1.0
    assert change_deviation(UPDATE, TrainingConfig(learning_rate=RATE)) == 1.0
    assert change_deviation(BARE, TrainingConfig(learning_rate=RATE)) == 0.0
    assert change_deviation(PLAN, TrainingConfig(learning_rate=RATE)) is None
    assert change_deviation(replace(PLAN, adaptive=AdaptiveClip()), sgd()) is None
    assert change_deviation(PLAN, sgd(momentum=0.5, keep_state=True)) is None
    assert change_deviation(PLAN, sgd(schedule=Schedule(Shape.LINEAR))) is None
    assert change_deviation(PLAN, sgd(schedule=Schedule(warmup=2))) is None


def test_the_pull_cannot_be_negative() -> None:
    with pytest.raises(ValueError, match=r"proximal_mu is -1; it must be 0 or more"):
        sgd(proximal_mu=-1)
