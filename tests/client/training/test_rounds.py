"""A round under each mechanism: what is charged, what is drawn, what moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from wardround.client import training as module
from wardround.client.optimizers import Optimizer
from wardround.client.schedules import Schedule, Shape
from wardround.client.training import TrainingConfig, check_plan, train_round
from wardround.privacy.adaptive import AdaptiveClip
from wardround.privacy.clipping import ClipRule
from wardround.privacy.errors import LedgerError, PolicyRefused, WardroundError
from wardround.privacy.events import primitive_counts
from wardround.privacy.plan import Mechanism, Mode, PrivacyPlan
from wardround.privacy.session import AdaptiveSession
from wardround.privacy.units import Unit

Records = Callable[..., Any]
RATE = 0.1
SGD = TrainingConfig(learning_rate=RATE, optimizer=Optimizer.SGD)

PLAIN = PrivacyPlan(Unit.RECORD, 1.0, 1.0, 0.5, 3, 10.0)
UPDATE = PrivacyPlan(Unit.SITE, 1.0, 1.0, 1.0, 3, 1.0, mechanism=Mechanism.WHOLE_UPDATE)
PAPER = PrivacyPlan(Unit.RECORD, 1.0, 4.0, 0.5, 3, 1.0, mechanism=Mechanism.RECONSTRUCTION)
PLANS = {
    "dp-sgd": PLAIN,
    "automatic": replace(PLAIN, clip_rule=ClipRule.AUTOMATIC),
    "adaptive": replace(PLAIN, adaptive=AdaptiveClip()),
    "max-records": replace(PLAIN, unit=Unit.PATIENT, max_records=1),
    "whole-update": UPDATE,
    "reconstruction": PAPER,
    "reconstruction of a site": replace(PAPER, unit=Unit.SITE),
}


def bare(plan: PrivacyPlan, **changes: Any) -> PrivacyPlan:
    return replace(plan, mode=Mode.NONE, noise_multiplier=0.0, **changes)


@pytest.mark.parametrize("name", PLANS)
def test_what_ran_is_what_was_charged(lab: Any, name: str) -> None:
    """The value carries exactly the plan's event, and not one draw more is paid for."""
    plan = PLANS[name]
    reservation = lab.reserve(plan)
    change = lab.train(plan, reservation=reservation)
    assert primitive_counts(change.event) == primitive_counts(plan.event)
    with pytest.raises(LedgerError, match="charged no more"):
        reservation.take(plan.step_event)
    assert {n: c.shape for n, c in change.value.items()} == lab.trainable.shapes
    assert all(bool(array.any()) for array in change.value.values())


@pytest.mark.parametrize("name", PLANS)
def test_a_round_without_its_charge_draws_nothing(lab: Any, name: str) -> None:
    plan = PLANS[name]
    cheaper = replace(plan, noise_multiplier=plan.noise_multiplier * 2)
    if plan.adaptive is not None:
        cheaper = replace(cheaper, adaptive=AdaptiveClip(count_noise=20.0))
    with pytest.raises(LedgerError, match="charged no more"):
        lab.train(plan, reservation=lab.reserve(cheaper))


def test_the_clip_norm_follows_the_norms(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No gradient is as short as a millionth, so Andrew et al.'s rule must raise the norm."""
    norms: list[float] = []
    real = AdaptiveSession.clipped_sum

    def watched(self: AdaptiveSession, shapes: Any) -> Any:
        norms.append(self.clip_norm)
        return real(self, shapes)

    monkeypatch.setattr(AdaptiveSession, "clipped_sum", watched)
    adaptive = AdaptiveClip(count_noise=0.6)
    lab.train(replace(PLAIN, clip_norm=1e-6, sampling_rate=1.0, expected_units=20.0,
                      adaptive=adaptive))  # fmt: skip
    assert norms[0] == 1e-6
    # share within is 0 but for noise of 0.6 / 20, so each step multiplies by about e^(0.2 * 0.5).
    assert norms[2] / norms[0] == pytest.approx(2.718281828**0.2, rel=0.05)


@pytest.mark.parametrize("most", [1, 2, 5])
def test_no_unit_brings_more_records_than_agreed(
    lab: Any, make_records: Records, most: int
) -> None:
    lab.train(replace(PLAIN, unit=Unit.PATIENT, max_records=most), make_records(20, 4))
    brought = {count for counts in lab.task.seen for count in counts}
    assert brought == {min(most, 4)}


def descend(lab: Any, steps: int, loss: Callable[[int], Tensor]) -> dict[str, Tensor]:
    """Gradient descent written out; the oracle for rounds without noise."""
    lab.trainable.write(lab.start)
    parameters = list(lab.trainable.parameters.values())
    for step in range(steps):
        found = torch.autograd.grad(loss(step), parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, found, strict=True):
                parameter -= RATE * gradient
    after = lab.trainable.read()
    return {name: after[name] - lab.start[name] for name in after}


def close(found: Any, expected: dict[str, Tensor]) -> None:
    for name, array in expected.items():
        torch.testing.assert_close(found[name], array, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("plan", [UPDATE, replace(PAPER, unit=Unit.SITE, sampling_rate=1.0)])
def test_steps_at_home_are_ordinary_descent(
    lab: Any, make_records: Records, plan: PrivacyPlan
) -> None:
    units = make_records(20)
    batch = lab.task.collate(units, None, None)
    expected = descend(lab, 3, lambda _: lab.task.losses(lab.trainable.model, batch).mean())
    close(lab.train(bare(plan), units).value, expected)


def test_a_bare_step_divides_by_the_public_number(lab: Any, make_records: Records) -> None:
    units = make_records(20)
    batch = lab.task.collate(units, None, None)
    expected = descend(lab, 3, lambda _: lab.task.losses(lab.trainable.model, batch).sum() / 25)
    close(lab.train(bare(PLAIN, sampling_rate=1.0, expected_units=25.0), units).value, expected)


def test_a_whole_update_is_no_longer_than_its_bound(lab: Any) -> None:
    """With hardly any noise the change has the clip norm's length: 8 numbers, noise 1e-4 each."""
    change = lab.train(replace(UPDATE, clip_norm=0.01, noise_multiplier=0.01))
    length = sum(float(array.square().sum()) for array in change.value.values()) ** 0.5
    assert length == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize("fails", [False, True])
def test_a_shared_model_keeps_no_bare_values(lab: Any, fails: bool) -> None:
    """What a hospital learnt without noise is gone from the model, also when a step broke."""

    def on_step(step: int, _: int) -> None:
        if fails and step == 2:
            raise MemoryError

    if fails:
        with pytest.raises(MemoryError):
            lab.train(UPDATE, on_step=on_step)
    else:
        lab.train(UPDATE, on_step=on_step)
    for name, array in lab.trainable.read().items():
        assert torch.equal(array, lab.start[name])


def test_the_rate_follows_the_schedule_over_rounds(lab: Any, make_records: Records) -> None:
    """Round 2 of 2 with 3 steps each, linear: factors 1/2, 1/3 and 1/6."""
    units = make_records(20)
    batch = lab.task.collate(units, None, None)
    expected = descend(
        lab,
        3,
        lambda step: (3 - step) / 6 * lab.task.losses(lab.trainable.model, batch).sum() / 20,
    )
    falling = replace(SGD, schedule=Schedule(Shape.LINEAR))
    plan = bare(PLAIN, sampling_rate=1.0, expected_units=20.0)
    close(lab.train(plan, units, training=falling, number=2, rounds=2).value, expected)


@pytest.mark.parametrize("name", sorted(PLANS.keys() - {"whole-update"}))
@pytest.mark.statistical
def test_the_deviation_told_to_the_optimizer_is_the_noise_s(
    lab: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """No units, so the mean is noise alone: 8 numbers x 60 steps, 480 draws.

    The sample deviation is off by 1/sqrt(960) = 3.2 %; 15 % is 4.6 of these (4e-6). Under adaptive
    clipping each step is divided by what was told for that step.
    """
    drawn: list[Tensor] = []

    def watched(self: Any, gradient: Any, factor: float, noise_deviation: float) -> Any:
        drawn.extend(array.flatten() / noise_deviation for array in gradient.values())
        return {name: array.clone() for name, array in lab.start.items()}

    monkeypatch.setattr(module.Descent, "step", watched)
    monkeypatch.setattr(module, "require_change", lambda change: None)
    lab.train(replace(PLANS[name], steps=60), [])
    assert float(torch.cat(drawn).std()) == pytest.approx(1.0, abs=0.15)


# --- guards -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", list(Mode))
def test_an_empty_sample_is_a_sample(lab: Any, mode: Mode) -> None:
    """One step in which nobody's coin came up: noise alone, or nothing in mode none; no error."""
    plan = replace(PLAIN, sampling_rate=1e-9, steps=1, expected_units=1.0)
    change = lab.train(bare(plan) if mode is Mode.NONE else plan)
    assert lab.task.seen == []
    assert all(bool(array.any()) == (mode is not Mode.NONE) for array in change.value.values())


def test_a_model_that_does_not_learn_is_not_sent(lab: Any) -> None:
    lab.task.losses = lambda model, batch: 0 * model(batch.inputs["x"])[:, 0]
    with pytest.raises(WardroundError, match="left every trainable value as it was"):
        lab.train(bare(PLAIN))


def test_values_that_are_not_finite_count_as_nothing(lab: Any) -> None:
    """Private: only noise leaves. Bare: nothing moved, which is an error."""
    lab.task.losses = lambda model, batch: model(batch.inputs["x"])[:, 0] * float("nan")
    change = lab.train(UPDATE)
    assert all(bool(torch.isfinite(array).all()) for array in change.value.values())
    with pytest.raises(WardroundError, match="left every trainable value"):
        lab.train(bare(UPDATE))


def test_names_of_the_start_must_match(lab: Any) -> None:
    with pytest.raises(WardroundError, match="'other' is unknown"):
        train_round(lab.round(PLAIN), {**lab.start, "other": torch.zeros(1)})


def test_mechanisms_that_do_not_fit_are_refused_before_any_charge(lab: Any) -> None:
    for plan in PLANS.values():
        check_plan(plan, SGD, lab.trainable)
    with pytest.raises(PolicyRefused, match="one-shot"):
        check_plan(replace(PLAIN, mechanism=Mechanism.ONE_SHOT, steps=1), SGD, lab.trainable)
    with pytest.raises(PolicyRefused, match="groups is 1; this adapter has factors of 2"):
        check_plan(replace(PAPER, groups=1), SGD, lab.trainable)
    with pytest.raises(PolicyRefused, match="moments of a whole update are bare"):
        check_plan(UPDATE, replace(SGD, keep_state=True), lab.trainable)
    other = replace(lab.trainable, parameters=dict(zip("xy", lab.trainable.parameters.values(),
                                                       strict=True)))  # fmt: skip
    with pytest.raises(PolicyRefused, match="x is no LoRA factor"):
        check_plan(PAPER, SGD, other)
    check_plan(PLAIN, SGD, other)
