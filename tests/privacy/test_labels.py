"""Randomised response: as often kept as promised, charged, and undone on average."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from wardround.client.tasks.preference.losses import PAIR_LOSSES, Likelihoods, LossSettings
from wardround.privacy.accountant import epsilon
from wardround.privacy.errors import LedgerError
from wardround.privacy.events import RandomisedResponse
from wardround.privacy.labels import debiased_counts, keep_probability, randomise_labels

ALARM = 1e-9
EVENT = RandomisedResponse(0.6, 4)


@pytest.mark.statistical
def test_labels_are_kept_as_often_as_promised(reserve, stream):
    labels = torch.full((40_000,), 2)
    noised = randomise_labels(labels, EVENT, reserve(EVENT), stream)
    seen = torch.bincount(noised.value["labels"], minlength=4)
    assert stats.chisquare(seen.tolist(), [4000, 4000, 28_000, 4000]).pvalue > ALARM
    assert noised.event == EVENT


@pytest.mark.statistical
def test_counts_are_unbiased(reserve, stream):
    labels = torch.repeat_interleave(torch.arange(4), torch.tensor([1000, 0, 6000, 3000]))
    noised = randomise_labels(labels, EVENT, reserve(EVENT), stream)
    counts = debiased_counts(noised.value["labels"], EVENT)
    # Each count's standard deviation is below sqrt(n/4)/keep = 83; 6.5 of them is 1e-10.
    error = (counts - torch.tensor([1000.0, 0.0, 6000.0, 3000.0])).abs().max()
    assert float(error) < 6.5 * 83
    with pytest.raises(ValueError, match="say nothing"):
        debiased_counts(labels, RandomisedResponse(0.0, 4))


@pytest.mark.statistical
@pytest.mark.parametrize(("budget", "flip"), [(1.0, 0.2689), (2.0, 0.1192), (3.0, 0.0474)])
def test_preferences_flip_as_warner_says_and_the_robust_loss_undoes_it(
    reserve, stream, budget, flip
):
    """Flip probability 1/(1 + exp(epsilon)); 6.5 standard deviations of the mean are 1e-10."""
    pairs = 40_000
    event = RandomisedResponse(keep_probability(budget, 2), 2)
    noised = randomise_labels(torch.zeros(pairs).long(), event, reserve(event), stream)
    flipped = noised.value["labels"].double()
    deviation = 6.5 * math.sqrt(flip * (1 - flip) / pairs)
    assert float(flipped.mean()) == pytest.approx(flip, abs=deviation)

    gain, zero, one = 1 - 2 * flipped, torch.zeros(pairs).double(), torch.ones(pairs)
    seen = Likelihoods(3 * gain, -3 * gain, zero, zero, one, one)
    wrong = 1 / (1 + math.exp(budget))
    robust = PAIR_LOSSES["robust"](seen, LossSettings(label_smoothing=wrong))
    clean = math.log1p(math.exp(-0.1 * 6))  # DPO at beta 0.1 of the pair as it was
    step = float(robust.max() - robust.min())
    assert float(robust.mean()) == pytest.approx(clean, abs=deviation * step + 1e-6)
    naive = PAIR_LOSSES["dpo"](seen, LossSettings())
    assert float(naive.mean()) > clean + deviation  # what the flips do when nobody minds them


def test_the_probability_for_an_epsilon_and_back():
    for target in (0.1, 1.0, 4.0):
        event = RandomisedResponse(keep_probability(target, 5), 5)
        assert target - 1e-9 <= epsilon(event, 1e-12) <= target + 2e-4
    for wrong in (0.0, math.inf):
        with pytest.raises(ValueError, match="finite and greater than 0"):
            keep_probability(wrong, 5)


def test_what_is_not_charged_or_not_a_label_is_refused(reserve, stream):
    reservation = reserve(EVENT)
    for labels in (torch.tensor([4]), torch.tensor([-1]), torch.zeros(2, 2).long()):
        with pytest.raises(ValueError, match=r"lie in \[0, 4\)"):
            randomise_labels(labels, EVENT, reservation, stream)
    randomise_labels(torch.tensor([1]), EVENT, reservation, stream)
    with pytest.raises(LedgerError, match="charged no more"):
        randomise_labels(torch.tensor([1]), EVENT, reservation, stream)
