"""Poisoned hospitals against the rules that docs/robustness.md names, on fresh seeds.

The thresholds are those of the benchmark's settings with room for 12 draws; they were fixed on
other seeds than are used here.
"""

from __future__ import annotations

from wardround.study.bench.robust import backdoor_scores, robust_benchmark, synthetic_errors

SEED = 20_261


def test_one_of_five_sends_ten_times_the_negative() -> None:
    """The mean of 4 mu and -10 mu is off by 11/5; the rules stay below half of the signal."""
    for noise in (0.0, 0.5):
        errors = synthetic_errors(5, 1, noise, draws=12, seed=SEED)
        assert errors["mean"] > 2
        for rule in ("median", "trimmed-mean", "geometric-median", "multi-krum"):
            assert errors[rule] < 0.5, rule


def test_one_of_eight_sends_ten_times_the_negative() -> None:
    """Off by 11/8 for the mean; the geometric median holds its bound and far more.

    The bound is (1 - 1/8) / sqrt(1 - 2/8) = 1.01 times the honest deviation of 0.5.
    """
    errors = synthetic_errors(8, 1, 0.0, draws=12, seed=SEED)
    assert errors["mean"] > 11 / 8 - 0.05
    assert errors["geometric-median"] < 1.01 * 0.5
    assert errors["norm-bounded-mean"] < 0.5


def test_without_a_malicious_hospital_the_geometric_median_costs_nothing() -> None:
    for noise in (0.0, 2.0):
        errors = synthetic_errors(5, 0, noise, draws=12, seed=SEED)
        assert errors["geometric-median"] < 1.05 * errors["mean"]
        assert errors["krum"] > 1.5 * errors["mean"]


def test_under_strong_noise_every_rule_is_worse_than_sending_nothing() -> None:
    """The documented limit: no rule finds the signal where noise is five times as strong."""
    errors = synthetic_errors(5, 1, 5.0, draws=12, seed=SEED)
    assert min(errors.values()) > 1


def test_a_replaced_model_carries_its_backdoor_past_the_mean_only() -> None:
    scores = backdoor_scores(0.0, 1, seeds=[SEED])
    assert scores["mean"]["attack_success"] > 0.6
    for rule in ("median", "trimmed-mean", "geometric-median", "multi-krum", "norm-bounded-mean"):
        assert scores[rule]["attack_success"] < 0.2, rule
        assert scores[rule]["accuracy"] > 0.9, rule


def test_noise_hides_a_backdoor_from_norms_and_distances() -> None:
    """The other documented limit: what is as long and as far as noise is taken for noise."""
    rules = ("norm-bounded-mean", "geometric-median")
    quiet = backdoor_scores(0.0, 1, seeds=[SEED, SEED + 1], only=rules)
    loud = backdoor_scores(5.0, 1, seeds=[SEED, SEED + 1], only=rules)
    for rule in rules:
        assert loud[rule]["attack_success"] > quiet[rule]["attack_success"] + 0.2


def test_the_document_has_what_the_table_needs() -> None:
    document = robust_benchmark(draws=1, seeds=[1], rounds=1)
    assert {row["hospitals"] for row in document["synthetic"]} == {5, 8, 20}
    assert set(document["backdoor"][0]["rules"]) == set(document["synthetic"][0]["error"])
