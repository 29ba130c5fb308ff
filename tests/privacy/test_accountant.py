"""Epsilon against published figures, other people's accountants and closed forms."""

from __future__ import annotations

import logging
import math
import subprocess
import sys
import time

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution
from dp_accounting.pld.pld_pmf import (
    DensePLDPmf,
    create_pmf_pessimistic_connect_dots_fixed_gap,
)
from scipy.optimize import brentq
from scipy.stats import norm

from wardround.privacy import accountant as module
from wardround.privacy.accountant import (
    Accountant,
    accountant_name,
    across_hospitals,
    calibrate,
    calibrate_noise_multiplier,
    default_delta,
    epsilon,
    require_delta,
)
from wardround.privacy.errors import BadInput
from wardround.privacy.events import (
    NOTHING,
    Composed,
    Gaussian,
    PoissonSampled,
    RandomisedResponse,
    Repeated,
    Unprotected,
    compose,
    from_counts,
)
from wardround.privacy.loss import _Pair, gaussian_loss, read_epsilon
from wardround.privacy.second_opinion import (
    _translate,
    epsilon_by,
    library_epsilon,
    prv_epsilon,
    rdp_epsilon,
)


def steps(sampling_rate, noise_multiplier, count):
    return Repeated(PoissonSampled(sampling_rate, Gaussian(noise_multiplier)), count)


# q, sigma, T, delta, then RDP and PLD (grid 1e-4) by dp-accounting 0.6.0 and PRV by Opacus 1.6.0,
# each asked directly: RDP, PRV, PLD.
TABLE = [
    (0.01, 1, 1000, 1e-5, 2.1014, 1.8384, 1.8282),
    (0.1, 2, 100, 1e-5, 2.5806, 2.3476, 2.3374),
    (1, 4, 20, 1e-5, 5.3777, 4.9936, 4.9833),
    (1, 1, 1, 1e-5, 4.7285, 4.3874, 4.3772),
    (1, 10, 100, 1e-5, 4.7285, 4.3874, 4.3772),
    (256 / 60000, 1.1, 14040, 1e-5, 2.5944, 2.3897, 2.3796),
    (0.004, 1.3, 15000, 1e-5, 1.9182, 1.7685, 1.7585),
    (0.5, 3, 30, 1e-3, 3.3869, 2.9753, 2.9650),
    (0.08, 1, 60, 2e-3, 3.2015, 2.5899, 2.5795),
    (0.32, 1.5, 30, 1e-3, 5.3391, 4.6232, 4.6127),
    (0.001, 0.6, 10000, 1e-6, 3.9991, 3.1625, 3.1522),
    (0.01, 4, 10000, 1e-5, 1.0355, 0.9569, 0.9470),
    (0.02, 0.5, 300, 1e-5, 16.490, 14.225, 14.214),
    (0.01, 8, 100, 1e-5, 0.0405, 0.0458, 0.0357),
]
# jax_privacy's documentation (accounting.py doctests): sigma 3, T 512, q 0.1, delta 1e-6.
JAX_PRIVACY = (0.1, 3, 512, 1e-6, 3.770)


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_pld_equals_the_table(row):
    rate, sigma, count, delta, _, _, expected = row
    # 1e-3 relative, and half a unit of the table's last digit where that is more.
    assert epsilon(steps(rate, sigma, count), delta) == pytest.approx(expected, rel=1e-3, abs=5e-5)


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_rdp_equals_the_table(row):
    rate, sigma, count, delta, expected, _, _ = row
    value = rdp_epsilon(steps(rate, sigma, count), delta)
    assert value == pytest.approx(expected, rel=1e-3, abs=5e-5)


def test_orders_that_do_not_converge_stay_out_of_the_log(caplog):
    """Their divergence counts as infinite, so what is left is still an upper bound."""
    event = steps(0.1, 0.8, 10)  # six orders fail here
    with caplog.at_level(logging.WARNING, "absl"):
        value = rdp_epsilon(event, 1e-5)
    assert not caplog.records
    assert value > epsilon(event, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("row", TABLE, ids=str)
def test_prv_equals_the_table(row):
    rate, sigma, count, delta, _, expected, _ = row
    value = prv_epsilon(steps(rate, sigma, count), delta)
    assert value == pytest.approx(expected, rel=1e-3, abs=5e-5)


@pytest.mark.slow
@pytest.mark.parametrize("row", TABLE, ids=str)
def test_pld_equals_dp_accounting_far_closer_than_the_table(row):
    """Two codes, one construction: they differ by floating-point noise, 1e-12 in delta a step."""
    rate, sigma, count, delta = row[:4]
    event = steps(rate, sigma, count)
    assert epsilon(event, delta) == pytest.approx(library_epsilon(event, delta), abs=1e-6)


def test_published_values():
    rate, sigma, count, delta, expected = JAX_PRIVACY
    assert epsilon(steps(rate, sigma, count), delta) == pytest.approx(expected, rel=1e-3)
    # Opacus' accountants_test.py: RDP at sigma 1.5, q 0.04, 2250 steps, delta 1e-5.
    assert rdp_epsilon(steps(0.04, 1.5, 2250), 1e-5) == pytest.approx(7.32911117143, rel=1e-3)


@pytest.mark.parametrize(("mu", "expected"), [(1.0, 4.37718), (math.sqrt(20) / 4, 4.98331)])
def test_unsampled_gaussians_equal_the_closed_form(mu, expected):
    """Balle and Wang (2018), theorem 8, solved by a root finder."""

    def excess(e):
        return norm.cdf(mu / 2 - e / mu) - math.exp(e) * norm.cdf(-mu / 2 - e / mu) - 1e-5

    exact = brentq(excess, 0, 50)
    assert exact == pytest.approx(expected, abs=1e-5)
    # Pessimistic rounding on a grid of 1e-4 costs at most a step.
    assert exact <= epsilon(Gaussian(1 / mu), 1e-5) <= exact + 1e-4
    assert exact <= epsilon(Repeated(Gaussian(4.0), round((4 * mu) ** 2)), 1e-5) <= exact + 1e-4


@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-9])
@pytest.mark.parametrize(
    "event",
    [steps(0.02, 1.1, 30), steps(0.3, 0.8, 4), Gaussian(3.0), RandomisedResponse(0.7, 4), NOTHING],
    ids=str,
)
def test_epsilon_is_read_off_as_dp_accounting_does_point_by_point(event, delta):
    found = Accountant(1e-3).loss(event)
    theirs = found.get_epsilon_for_delta(delta)
    assert read_epsilon(found, delta) == pytest.approx(theirs, rel=1e-9, abs=1e-9)


def test_reading_stops_where_the_library_stops():
    """Losses that never happen, mass at infinity, and losses beyond what exp can tell from zero."""
    pld = privacy_loss_distribution.PrivacyLossDistribution
    for first, masses, infinite in (
        (-3, [0.5, 0.5], 0.0),
        (2, [0.3, 0.0, 0.7], 0.0),
        (-1, [0.4, 0.2, 0.3], 0.1),
        (900, [0.5, 0.5], 0.0),
    ):
        found = pld(DensePLDPmf(1.0, first, np.array(masses), infinite, True))
        for delta in (0.05, 0.2, 0.6):
            assert read_epsilon(found, delta) == pytest.approx(found.get_epsilon_for_delta(delta))


def test_the_distribution_is_the_librarys_without_its_detour():
    """Mass by mass against dp-accounting's own connect-the-dots constructor."""
    ours = gaussian_loss(1.3, 0.2, 1e-2)._pmf_add
    last = ours._lower_loss + ours.size - 1
    pair = _Pair(1.3, np.arange(2.0), np.log([0.8, 0.2]))
    deltas = pair.divergence(np.arange(ours._lower_loss, last + 1) * 1e-2, remove=False)
    theirs = create_pmf_pessimistic_connect_dots_fixed_gap(
        1e-2, ours._lower_loss, last, np.minimum.accumulate(np.clip(deltas, 0, 1))
    ).to_dense_pmf()
    assert np.abs(ours._probs - theirs._probs).max() < 1e-12
    assert ours._infinity_mass == theirs._infinity_mass


@pytest.mark.parametrize("records", [1, 3])
def test_gaussians_alone_need_no_grid(records):
    """The closed form against the distribution on a grid of 1e-3."""
    event = compose(Repeated(Gaussian(4.0), 3), Gaussian(7.0))
    for delta in (1e-2, 1e-5, 1e-8):
        exact = Accountant(1e-3, records).epsilon(event, delta)
        grid = Accountant(1e-3, records).loss(event).get_epsilon_for_delta(delta)
        assert exact == pytest.approx(grid, abs=1e-3)
        assert exact <= grid + 2e-9
    assert epsilon(Repeated(Gaussian(1e6), 2), 1e-5) == 0.0


def test_the_same_question_is_answered_once(monkeypatch):
    accountant = Accountant(1e-3)
    event = compose(Gaussian(3.0), steps(0.1, 1.0, 5))
    first = accountant.epsilon(event, 1e-5)
    monkeypatch.setattr(accountant, "_sum", None)
    assert accountant.epsilon(compose(steps(0.1, 1.0, 5), Gaussian(3.0)), 1e-5) == first
    with pytest.raises(TypeError):
        accountant.epsilon(event, 1e-6)


def test_mixed_events_equal_dp_accounting():
    """The three phases of one hospital; the table's figures are 3.5282 (RDP) and 3.0656 (PLD)."""
    event = compose(steps(0.05, 1.2, 50), steps(0.02, 0.9, 200), Repeated(Gaussian(8.0), 5))
    assert epsilon(event, 1e-5) == pytest.approx(3.0656, rel=1e-4)
    assert rdp_epsilon(event, 1e-5) == pytest.approx(3.5282, rel=1e-4)
    assert prv_epsilon(event, 1e-5) == pytest.approx(3.0759, rel=1e-3)


def test_composing_is_not_adding():
    """Thirty rounds of five steps: 62.2 by adding the rounds' epsilons, 4.176 jointly."""
    assert 30 * epsilon(steps(0.05, 1.0, 5), 1e-5 / 30) > 60
    assert epsilon(steps(0.05, 1.0, 150), 1e-5) == pytest.approx(4.176, rel=1e-3)


def test_each_hospital_pays_by_its_own_size():
    for units, batch, expected in ((200, 16, 4.993), (2000, 64, 2.307), (20000, 128, 0.566)):
        value = epsilon(steps(batch / units, 1.0, 150), 0.1 / units)
        assert value == pytest.approx(expected, rel=2e-3)  # the figures are of grid 1e-3


def test_what_cannot_tell_anything_costs_nothing():
    assert epsilon(NOTHING, 1e-5) == 0
    assert epsilon(steps(0.0, 1.0, 50), 1e-5) == 0
    assert epsilon(RandomisedResponse(0.0, 3), 1e-5) == 0
    assert epsilon(PoissonSampled(1e-9, Gaussian(1.0)), 1e-5) == 0
    both = compose(steps(0.0, 1.0, 50), Gaussian(2.0))
    assert epsilon(both, 1e-5) == epsilon(Gaussian(2.0), 1e-5)


def test_sampling_everybody_is_not_sampling():
    assert epsilon(steps(1.0, 2.0, 3), 1e-5) == epsilon(Repeated(Gaussian(2.0), 3), 1e-5)


def test_without_protection_epsilon_is_infinite():
    event = compose(Gaussian(2.0), Unprotected())
    assert epsilon(event, 1e-5) == math.inf
    assert library_epsilon(event, 1e-5) == rdp_epsilon(event, 1e-5) == prv_epsilon(event, 1e-5)


def test_too_little_noise_is_called_infinite_instead_of_filling_the_memory():
    assert epsilon(Gaussian(1e-4), 1e-5) == math.inf
    assert epsilon(PoissonSampled(1e-9, Gaussian(1e-3)), 1e-5) == math.inf
    assert epsilon(compose(Gaussian(2.0), PoissonSampled(1e-9, Gaussian(1e-3))), 1e-5) == math.inf
    assert epsilon(steps(0.5, 0.12, 10**6), 1e-5) == math.inf
    assert epsilon(steps(0.5, 0.5, 20), 1e-5) < math.inf


@pytest.mark.parametrize(("delta", "records"), [(0.0, 1), (1.0, 1), (1e-5, 0)])
def test_questions_without_an_answer_are_refused(delta, records):
    with pytest.raises(ValueError, match="it must"):
        epsilon(Gaussian(1.0), delta, records)


def test_unknown_events_are_refused():
    with pytest.raises(TypeError, match="no accounting rule"):
        module._single("magic", 1e-4, 1)


# --- persons with several records ---------------------------------------------------------------


@pytest.mark.parametrize("records", [2, 3])
def test_several_records_equal_dp_accountings_mixture(records):
    rate, sigma, count = 0.05, 5.0, 20
    weights = [
        math.comb(records, j) * rate**j * (1 - rate) ** (records - j) for j in range(records + 1)
    ]
    oracle = privacy_loss_distribution.from_mixture_gaussian_mechanism(
        sigma, range(records + 1), weights, value_discretization_interval=1e-3
    ).self_compose(count)
    value = epsilon(steps(rate, sigma, count), 1e-5, records)
    assert value == pytest.approx(oracle.get_epsilon_for_delta(1e-5), rel=1e-5)


def test_several_records_without_sampling_are_one_bigger_record():
    assert epsilon(Gaussian(4.0), 1e-5, 4) == pytest.approx(epsilon(Gaussian(1.0), 1e-5), abs=2e-3)


def test_more_records_cost_more_and_less_than_the_generic_bound():
    event = steps(0.02, 2.0, 100)
    one, two, four = (epsilon(event, 1e-5, records) for records in (1, 2, 4))
    assert one < two < four
    # Group privacy for any mechanism (Vadhan 2017, lemma 2.2): twice epsilon at a smaller delta.
    assert two <= 2 * epsilon(event, 1e-5 / (1 + math.exp(2 * one)))


# --- labels -------------------------------------------------------------------------------------


def test_randomised_response_equals_its_closed_form():
    """Pure differential privacy: log of the ratio of the two answer probabilities."""
    for keep, classes in ((0.5, 2), (0.75, 4), (0.9, 10)):
        other = (1 - keep) / classes
        exact = math.log((keep + other) / other)
        value = epsilon(RandomisedResponse(keep, classes), 1e-12)
        assert exact <= value <= exact + 1e-4 + 1e-9


def test_repeated_randomised_response_equals_dp_accounting():
    oracle = privacy_loss_distribution.from_randomized_response(0.5, 3).self_compose(10)
    value = epsilon(Repeated(RandomisedResponse(0.5, 3), 10), 1e-5)
    assert value == pytest.approx(oracle.get_epsilon_for_delta(1e-5), abs=1e-6)


# --- several hospitals --------------------------------------------------------------------------


def test_a_patient_at_one_hospital_pays_the_worst_of_them_else_the_sum():
    events = [steps(0.08, 1.0, 60), steps(0.02, 1.0, 60)]
    apart = across_hospitals(events, 1e-5, linkable=False)
    together = across_hospitals(events, 1e-5, linkable=True)
    assert apart == epsilon(events[0], 1e-5)
    assert together == epsilon(Composed(tuple(events)), 1e-5) > apart
    assert across_hospitals([], 1e-5, linkable=False) == 0


# --- delta --------------------------------------------------------------------------------------


def test_delta_must_stay_below_one_over_the_units():
    require_delta(1e-5, 300)
    with pytest.raises(ValueError, match=r"with 300 units it must be .* below 0\.00333333"):
        require_delta(1 / 300, 300)
    with pytest.raises(ValueError, match="greater than 0"):
        require_delta(0.0, 300)
    assert default_delta(300) == 1e-5
    assert default_delta(10**6) == pytest.approx(1e-7)
    for units in (2, 300, 10**7):
        require_delta(default_delta(units), units)


# --- calibration --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "delta", "rate", "count", "expected"),
    # dp-accounting's calibrate_dp_mechanism on a grid of 1e-3; jax_privacy's 9.66 for epsilon 1.
    [
        (2.0, 1e-5, 0.01, 1000, 0.9592), (3.0, 1e-5, 0.1, 100, 1.6747),
        (8.0, 1e-4, 0.08, 150, 0.8505), (8.0, 1e-4, 1.0, 30, 2.9745),
        (1.0, 1e-6, 0.1, 512, 9.662),
    ],
)  # fmt: skip
def test_calibration_equals_dp_accountings(target, delta, rate, count, expected):
    sigma = calibrate_noise_multiplier(target, delta, rate, count)
    assert sigma == pytest.approx(expected, abs=2e-4)
    assert epsilon(steps(rate, sigma, count), delta) <= target
    assert epsilon(steps(rate, sigma - 1e-4, count), delta) > target


def test_calibration_takes_seconds_not_minutes():
    module._power.cache_clear()
    module._single.cache_clear()
    start = time.process_time()
    calibrate_noise_multiplier(8.0, 1e-5, 0.05, 200)
    assert time.process_time() - start < 6


def test_calibration_takes_what_was_spent_before_into_account():
    before = steps(0.05, 2.0, 100)
    sigma = calibrate(lambda s: compose(before, steps(0.05, s, 100)), 3.0, 1e-5)
    assert sigma > calibrate_noise_multiplier(3.0, 1e-5, 0.05, 100)
    assert epsilon(compose(before, steps(0.05, sigma, 100)), 1e-5) <= 3.0


def test_calibration_goes_as_far_as_it_must_and_no_further():
    assert calibrate_noise_multiplier(1.0, 1e-2, 1e-4, 1) == 0.2  # any noise would do
    assert calibrate_noise_multiplier(0.01, 1e-6, 1.0, 1) > 100
    with pytest.raises(ValueError, match="out of reach"):
        calibrate(lambda s: compose(Gaussian(0.5), Gaussian(s)), 1.0, 1e-5)
    for target in (0.0, math.inf, math.nan, 101.0):
        with pytest.raises(ValueError, match="greater than 0 and at most 100"):
            calibrate_noise_multiplier(target, 1e-5, 0.1, 10)


# --- many different events ----------------------------------------------------------------------


def predicted_and_spent():
    """A study planned at once, and the same study round by round on a fresh accountant."""
    planned = Accountant().epsilon(steps(0.05, 1.3, 200), 1e-5)
    rounds, spent = Accountant(), NOTHING
    for _ in range(4):
        spent = compose(spent, steps(0.05, 1.3, 50))
        value = rounds.epsilon(spent, 1e-5)
    return planned, value


def test_predicted_and_spent_agree_to_the_last_bit():
    planned, spent = predicted_and_spent()
    assert planned == spent


@pytest.mark.slow
def test_after_ten_thousand_mixed_events_the_next_question_is_quick():
    events = {
        PoissonSampled(0.005 + 4e-4 * i, Gaussian(1 + 0.03 * (i % 17))): 420 + i for i in range(24)
    }
    assert sum(events.values()) > 10_000
    accountant = Accountant()
    before = accountant.epsilon(from_counts(events), 1e-5)
    taken = []
    for rate in (0.0123, 0.0171, 0.0207):  # new to the accountant, so nothing of it is known
        events[PoissonSampled(rate, Gaussian(1.111))] = 1
        start = time.process_time()
        after = accountant.epsilon(from_counts(events), 1e-5)
        taken.append(time.process_time() - start)
        assert before < after < before + 0.1
        before = after
    # A coverage run traces every line of the library's loops, which takes twice as long.
    assert min(taken) <= (0.2 if sys.gettrace() is None else 0.5)
    # What was known is never taken for more than it is: a fresh accountant says the same.
    assert before == pytest.approx(Accountant().epsilon(from_counts(events), 1e-5), abs=1e-6)


def test_sums_that_are_no_part_of_the_question_are_not_used():
    """Nine kinds of event, so that sums are reused; the second list lacks one of the first."""
    kinds = [PoissonSampled(0.01 * i, Gaussian(2.0)) for i in range(1, 11)]
    accountant = Accountant()
    for chosen in (kinds[:9], kinds[1:], kinds):
        event = from_counts(dict.fromkeys(chosen, 3))
        assert accountant.epsilon(event, 1e-5) == pytest.approx(
            Accountant().epsilon(event, 1e-5), abs=1e-6
        )
    for i in range(8):  # older sums are forgotten
        accountant.loss(Gaussian(2.0 + i))
    assert len(accountant._sums) == 6


# --- second opinions ----------------------------------------------------------------------------


def test_second_opinions_by_name():
    event = steps(0.1, 2.0, 10)
    values = [epsilon_by(name, event, 1e-5) for name in ("pld", "pld-library", "rdp", "prv")]
    assert max(values) < 1.25 * min(values)
    with pytest.raises(BadInput, match="gdp: the Gaussian-DP approximation reports less"):
        epsilon_by("gdp", event, 1e-5)
    with pytest.raises(BadInput, match="unknown; did you mean 'rdp'"):
        epsilon_by("rdpp", event, 1e-5)


def test_second_opinions_on_what_tells_nothing():
    event = steps(0.0, 1.0, 5)
    assert library_epsilon(event, 1e-5) == rdp_epsilon(event, 1e-5) == prv_epsilon(event, 1e-5) == 0


def test_second_opinions_say_what_they_cannot_do():
    for opinion in (library_epsilon, rdp_epsilon, prv_epsilon):
        with pytest.raises(ValueError, match=r"account|compose"):
            opinion(RandomisedResponse(0.5, 2), 1e-5)
    with pytest.raises(ValueError, match="takes too long below"):
        prv_epsilon(Gaussian(0.3), 1e-5)
    with pytest.raises(TypeError, match="no accounting rule"):
        _translate("magic")


def test_the_accountant_names_itself_and_loads_no_library():
    assert "grid 0.0001" in accountant_name()
    script = (
        "import sys, wardround.privacy.accountant\n"
        "assert not {'torch', 'opacus', 'dp_accounting'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_next_guess_follows_a_power_law_or_halves():
    assert module._between((1.0, 4.0), (4.0, 1.0), 2.0) == pytest.approx(2.0)
    assert module._between((1.0, 4.0), (4.0, 0.0), 2.0) == 2.0
    assert module._between((1.0, math.inf), (4.0, 1.0), 2.0) == 2.0
    assert module._between((1.0, 4.0), (4.0, 3.9), 4.0) == pytest.approx(1.00005)


def test_polishing_finds_the_least_digit_from_either_side():
    for guess in (0.4, 1.2345, 1.3):
        assert module._polish(guess, lambda digits: digits >= 12346) == 12346
    assert module._polish(0.21, lambda digits: True) == 2000
