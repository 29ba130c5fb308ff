"""Attacks on tiny models: they work without privacy and stay below their limits with it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from wardround.privacy.exposure import BASE, DIGITS, ExposureSetup, attack_secrets
from wardround.privacy.inversion import Factor, InversionSetup, attack_gradient, words_in_span
from wardround.privacy.limits import most_area
from wardround.privacy.membership import (
    MembershipSetup,
    attack_membership,
    likelihood_ratios,
)
from wardround.privacy.shadows import Examples, Heads, Mechanism, Training, train_heads

BARE = Mechanism()
CLIPPED = Mechanism(clip_norm=1.0)
STEPS = Training().steps


def private(mu: float) -> Mechanism:
    """Noise that makes ``STEPS`` steps ``mu``-Gaussian-private."""
    return Mechanism(clip_norm=1.0, noise_multiplier=math.sqrt(STEPS) / mu)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# -- the tiny models ------------------------------------------------------------------------------


def test_heads_train_as_autograd_and_plain_gradient_descent_would() -> None:
    """The oracle is autograd on the mean over copies, one model at a time, in float64."""
    generator = seeded(1)
    features = torch.randn((1, 5, 2, 6), generator=generator)
    labels = torch.randint(3, (1, 5, 2), generator=generator)
    copies = torch.tensor([[1.0, 0.0, 2.0, 1.0, 1.0], [0.0, 1.0, 1.0, 3.0, 0.0]])
    training = Training(steps=7, learning_rate=0.3, rank=2, scale=1.5)
    heads = train_heads(Examples(features, labels, copies, 3, 5.0), training, BARE, seeded(2))
    start = torch.randn((2, 6), generator=seeded(2)) / math.sqrt(6)
    for model in range(2):
        down = start.double().requires_grad_()
        up = torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)
        for _ in range(7):
            logits = features[0].double() @ down.T @ up.T * 1.5
            losses = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), labels[0].flatten(), reduction="none"
            )
            loss = (losses.view(5, 2).sum(1) * copies[model]).sum() / 5.0
            slope_down, slope_up = torch.autograd.grad(loss, (down, up))
            down = (down - 0.3 * slope_down).detach().requires_grad_()
            up = (up - 0.3 * slope_up).detach().requires_grad_()
        # float32 against float64 over seven steps of numbers around 1
        torch.testing.assert_close(heads.down[model].double(), down.detach(), rtol=0, atol=1e-5)
        torch.testing.assert_close(heads.up[model].double(), up.detach(), rtol=0, atol=1e-5)


def test_one_unit_moves_a_step_by_at_most_the_clip() -> None:
    generator = seeded(3)
    features = torch.randn((1, 4, 3, 8), generator=generator) * 100
    labels = torch.randint(5, (1, 4, 3), generator=generator)
    copies = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0]])
    training = Training(steps=1, learning_rate=1.0)
    examples = Examples(features, labels, copies, 5, 1.0)
    moved = {}
    for name, mechanism in (("clipped", Mechanism(clip_norm=0.1)), ("bare", BARE)):
        heads = train_heads(examples, training, mechanism, seeded(4))
        parts = torch.cat([heads.down.flatten(1), heads.up.flatten(1)], 1)
        moved[name] = float((parts[0] - parts[1]).norm())
    assert moved["clipped"] == pytest.approx(0.1, rel=1e-4)
    assert moved["bare"] > 1.0


@pytest.mark.statistical
def test_noise_has_the_deviation_it_is_charged_for() -> None:
    """3200 x 5 normals; 6 standard errors of a deviation are 6 / sqrt(2 n), chance 2e-9."""
    examples = Examples(
        torch.zeros(1, 1, 1, 10), torch.zeros(1, 1, 1, dtype=torch.long), torch.ones(40, 1), 5, 1.0
    )
    mechanism = Mechanism(clip_norm=2.0, noise_multiplier=3.0)
    heads = train_heads(examples, Training(steps=1, learning_rate=1.0), mechanism, seeded(5))
    n = heads.up.numel()
    assert float(heads.up.std()) == pytest.approx(6.0, rel=6 / math.sqrt(2 * n))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Mechanism(clip_norm=0.0), "clip_norm"),
        (lambda: Mechanism(1.0, -1.0), "noise_multiplier"),
        (lambda: Mechanism(1.0, math.inf), "noise_multiplier"),
        (lambda: Mechanism(noise_multiplier=1.0), "finite clip_norm"),
        (lambda: Training(steps=0), "steps"),
        (lambda: Training(learning_rate=-1.0), "learning_rate"),
        (lambda: MembershipSetup(shadows=2), "shadows is 2"),
        (lambda: MembershipSetup(targets=5), "must be even"),
        (lambda: ExposureSetup(copies=0), "copies"),
        (lambda: InversionSetup(batches=1), "batches"),
        (lambda: InversionSetup(tokens=500), "tokens"),
        (
            lambda: Examples(torch.zeros(1, 3, 1, 2), torch.zeros(1, 2, 1), torch.ones(1, 2), 2, 1),
            "features",
        ),
        (
            lambda: Examples(torch.zeros(1, 2, 1, 2), torch.zeros(1, 2, 4), torch.ones(1, 2), 2, 1),
            "labels",
        ),
    ],
)
def test_settings_that_make_no_sense(make: Any, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        make()


# -- membership -----------------------------------------------------------------------------------


@pytest.mark.statistical
@pytest.mark.parametrize("mu", [2.0, 1.0, 0.5, 0.1])
def test_lira_stays_below_its_limit(mu: float) -> None:
    """Seed 10. Limit plus 3 standard errors: exceeded by chance at most once in 700 per figure."""
    result = attack_membership(MembershipSetup(), private(mu), seeded(10))
    assert result.area_limit == pytest.approx(most_area(mu))
    assert result.area <= result.area_limit + 3 * result.area_error
    assert result.true_positives <= result.true_positives_limit + 3 * result.true_positives_error
    if mu >= 1:
        assert result.area > 0.65, "an attack that finds nothing tests nothing"
    if mu == 0.1:
        assert result.area == pytest.approx(0.5, abs=0.05)


@pytest.mark.statistical
def test_lira_works_without_privacy() -> None:
    result = attack_membership(MembershipSetup(), BARE, seeded(11))
    assert result.area > 0.9
    assert result.true_positives > 0.3
    assert result.area_limit == result.true_positives_limit == 1.0


@pytest.mark.statistical
@pytest.mark.parametrize("twin", [CLIPPED, private(10.0)], ids=["clipping-alone", "a-tenth"])
def test_a_mechanism_sold_for_more_than_it_is_breaks_the_limit(twin: Mechanism) -> None:
    """Broken twins: sold as mu = 1, they add no noise, or a tenth of it."""
    result = attack_membership(MembershipSetup(), twin, seeded(12))
    assert result.area > most_area(1.0) + 3 * result.area_error
    assert result.area > 0.9


def test_equal_seeds_equal_attacks() -> None:
    setup = MembershipSetup(records=6, shadows=4, targets=4, training=Training(steps=2))
    first, again = (attack_membership(setup, private(1.0), seeded(13)) for _ in range(2))
    assert first == again
    assert first != attack_membership(setup, private(1.0), seeded(14))


def test_the_ratio_is_that_of_two_normal_densities() -> None:
    """The oracle is torch's normal distribution, record by record."""
    generator = seeded(15)
    shadows = torch.randn((8, 3), generator=generator, dtype=torch.float64)
    members = torch.rand((8, 3), generator=generator).argsort(0) < 4
    targets = torch.randn((5, 3), generator=generator, dtype=torch.float64)
    ratios = likelihood_ratios(shadows, members, targets)
    for record in range(3):
        seen, unseen = (
            torch.distributions.Normal(side.mean(), side.std())
            for side in (
                shadows[members[:, record], record],
                shadows[~members[:, record], record],
            )
        )
        expected = seen.log_prob(targets[:, record]) - unseen.log_prob(targets[:, record])
        torch.testing.assert_close(ratios[:, record], expected)


# -- exposure -------------------------------------------------------------------------------------


@pytest.mark.statistical
def test_a_secret_seen_sixteen_times_comes_first_without_privacy() -> None:
    result = attack_secrets(ExposureSetup(copies=16), BARE, seeded(20))
    assert result.exposure > math.log2(BASE**DIGITS) - 0.2
    assert result.first > 0.9


@pytest.mark.statistical
def test_a_model_that_saw_nothing_ranks_at_random() -> None:
    """Closed form: log2 e less 1/1000. 400 ranks, seed 21, 4 standard errors: chance 6e-5."""
    setup = ExposureSetup(canaries=10, models=40)
    result = attack_secrets(setup, private(1e-4), seeded(21))
    assert result.exposure == pytest.approx(math.log2(math.e), abs=4 * result.exposure_error)
    assert result.exposure_limit == pytest.approx(math.log2(math.e), abs=3e-3)


@pytest.mark.statistical
@pytest.mark.parametrize(("copies", "mu"), [(1, 0.2), (1, 0.7), (4, 0.2), (4, 0.7), (16, 0.2)])
def test_exposure_stays_below_its_limit(copies: int, mu: float) -> None:
    """Seed 22; limit plus 3 standard errors over models."""
    result = attack_secrets(ExposureSetup(copies=copies), private(mu), seeded(22))
    assert result.exposure <= result.exposure_limit + 3 * result.exposure_error


@pytest.mark.statistical
def test_clipping_alone_does_not_keep_a_secret() -> None:
    """Broken twin: sold as mu = 0.7, clips and adds nothing."""
    sold = attack_secrets(ExposureSetup(), private(0.7), seeded(23)).exposure_limit
    result = attack_secrets(ExposureSetup(), CLIPPED, seeded(23))
    assert result.exposure > sold + 3 * result.exposure_error


def test_ranks_are_those_of_all_numbers_written_out() -> None:
    """The oracle scores every number digit by digit in Python."""
    from wardround.privacy.exposure import _features, _ranks

    generator = seeded(24)
    table = _features(2, 5, generator)
    heads = Heads(
        torch.randn((1, 3, 5), generator=generator),
        torch.randn((1, BASE, 3), generator=generator),
        2.0,
    )
    digits = torch.tensor([[[4, 7, 1, 1], [0, 0, 9, 3]]])
    scores = (table.double() @ heads.down[0].double().T @ heads.up[0].double().T * 2).log_softmax(
        -1
    )
    for person in range(2):
        totals = []
        for number in range(BASE**DIGITS):
            text = [int(d) for d in f"{number:04d}"]
            places = zip(range(DIGITS), [BASE, *text[:-1]], text, strict=True)
            totals.append(sum(float(scores[person, p, b, d]) for p, b, d in places))
        true = totals[int("".join(map(str, digits[0, person].tolist())))]
        rank = 1 + sum(total > true + 1e-9 for total in totals)
        # float32 may order two numbers differently whose scores differ in the seventh digit
        assert float(_ranks(heads, table, digits)[0, person]) == pytest.approx(rank, abs=3)


# -- gradient inversion ---------------------------------------------------------------------------


@pytest.mark.parametrize("factor", list(Factor))
@pytest.mark.parametrize("tokens", [4, 6])
@pytest.mark.parametrize("mechanism", [BARE, CLIPPED], ids=["bare", "clipping-alone"])
def test_fewer_words_than_the_rank_are_read_off_the_gradient(
    factor: Factor, tokens: int, mechanism: Mechanism
) -> None:
    """Clipping scales a gradient and turns it nowhere, so it hides nothing."""
    setup = InversionSetup(factor=factor, rank=8, tokens=tokens)
    assert attack_gradient(setup, mechanism, seeded(30)).recall >= 0.9


@pytest.mark.parametrize("factor", list(Factor))
@pytest.mark.parametrize("noise", [1.0, 2.0])
def test_noise_leaves_little_more_than_chance(factor: Factor, noise: float) -> None:
    setup = InversionSetup(factor=factor, batches=100)
    result = attack_gradient(setup, Mechanism(1.0, noise), seeded(31))
    assert result.recall <= 3 * setup.chance
    assert result.recall <= result.recall_limit + 3 * result.recall_error


def test_b_shows_no_more_directions_than_the_rank_and_a_shows_them_all() -> None:
    """Twelve words at rank 8 need more directions than the rank has."""
    setup = InversionSetup(tokens=12)
    assert attack_gradient(setup, BARE, seeded(32)).recall < 0.15
    assert attack_gradient(replace(setup, factor=Factor.A), BARE, seeded(32)).recall > 0.9


def test_words_in_span_by_hand() -> None:
    """Rows span the first and third axis; words 1 and 3 lie in it, the others do not."""
    seen = torch.tensor([[0.0, 1, 0], [2, 0, 5], [1, 1, 1], [0, 0, -3]])
    gradient = torch.tensor([[1.0, 0, 1], [1, 0, -1], [3, 0, 0]])
    assert sorted(words_in_span(gradient, seen, 2).tolist()) == [1, 3]
