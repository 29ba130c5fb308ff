"""Distributed noise: what a share is, what a sum carries, and which guarantee is charged."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from wardround.privacy.accountant import epsilon
from wardround.privacy.adaptive import AdaptiveClip
from wardround.privacy.chain import LedgerHead
from wardround.privacy.clipping import ClippedSum
from wardround.privacy.disclosures import nist_points, plain_summary, threats
from wardround.privacy.distributed import LEAST_SIGMA, add_share, share_lattice
from wardround.privacy.errors import BadInput, BadMessage, LedgerError, PolicyRefused
from wardround.privacy.events import Gaussian, PoissonSampled, Repeated, compose
from wardround.privacy.guarantees import guarantees, reread
from wardround.privacy.mechanisms import Mechanism, Mode
from wardround.privacy.plan import SecureSum
from wardround.privacy.policy import Policy
from wardround.privacy.report import Standing, check_report, hospital_report, sign_report
from wardround.privacy.signing import SigningKey
from wardround.privacy.stream import SecureStream
from wardround.privacy.units import Unit

DIMENSIONS = 200
SECURE = SecureSum(hospitals=6, threshold=4)


@pytest.fixture
def plan(make_privacy):
    return make_privacy(
        mode=Mode.DISTRIBUTED, shares=4, honest_hospitals=3, steps=1, noise_multiplier=2.0
    )


def a_sum(fill=0.0, bound=1.0, unit=Unit.RECORD, dimensions=DIMENSIONS):
    """The clipped sum of one unit's contribution."""
    total = ClippedSum({"a": torch.Size([dimensions])}, bound, unit)
    total.add({"a": torch.full((1, dimensions), fill)}, [0])
    return total.close()


def test_shares_add_up_to_the_whole_noise(plan):
    """Multiplier 2 over 4 shares: 1 alone, sqrt(3) with two honest others, 2 for all four."""
    assert plan.share_multiplier == 1.0
    assert plan.effective_multiplier == math.sqrt(3)
    assert plan.relying_on(4) == 2.0
    assert plan.event == Repeated(PoissonSampled(0.05, Gaussian(math.sqrt(3))), 1)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("hospitals", [4, 64])
def test_the_noise_covers_the_rounded_sum_and_fits_its_word(plan, bits, hospitals):
    lattice = share_lattice(plan, DIMENSIONS, hospitals, bits)
    # The triangle inequality: neighbours are clip_norm apart, and each is rounded by half a step
    # a coordinate.
    sensitivity = plan.clip_norm / lattice.step + math.sqrt(DIMENSIONS)
    assert lattice.sigma >= sensitivity * (1 - 1e-9)
    assert lattice.sigma <= sensitivity * (1 + 1e-9)
    assert lattice.sigma >= LEAST_SIGMA
    worst = hospitals * lattice.limit + 16 * math.sqrt(hospitals) * lattice.sigma
    assert worst < 2 ** (bits - 1)
    assert lattice.limit * lattice.step >= 4 * plan.expected_units * plan.clip_norm * 0.999


@pytest.mark.statistical
def test_a_share_has_its_variance_and_four_have_all_of_it(plan, reserve, stream):
    """Chi-square on the squares; each of the two bounds is missed with probability 1e-6."""
    dimensions = 4000
    lattice = share_lattice(plan, dimensions, 6, 32)
    rows = [
        add_share(a_sum(0.0, dimensions=dimensions), plan, lattice, reserve(plan.event), stream)
        for _ in range(4)
    ]
    for values, multiplier in ((rows[0].value["a"], 1.0), (sum(r.value["a"] for r in rows), 2.0)):
        deviation = multiplier * lattice.sigma
        squares = float((values.double() / deviation).square().sum())
        low, high = chi2.ppf([5e-7, 1 - 5e-7], dimensions)
        assert low < squares < high


def test_a_share_holds_the_sum_in_whole_steps(plan, reserve, stream):
    """Two draws from the same stream differ by the sums alone, to half a step each."""
    lattice = share_lattice(plan, DIMENSIONS, 6, 32)
    noised = [
        add_share(a_sum(fill), plan, lattice, reserve(plan.event), SecureStream(b"k" * 32))
        for fill in (0.0, 0.05)
    ]
    assert noised[0].event == plan.step_event
    assert noised[0].value["a"].dtype is torch.int64
    difference = (noised[1].value["a"] - noised[0].value["a"]).double() * lattice.step
    assert float((difference - 0.05).abs().max()) <= lattice.step / 2 + 1e-9


def test_coordinates_beyond_the_limit_are_cut_before_the_noise(plan, reserve):
    lattice = replace(share_lattice(plan, DIMENSIONS, 6, 32), limit=10)
    streams = [SecureStream(b"k" * 32), SecureStream(b"k" * 32)]
    zero = add_share(a_sum(0.0), plan, lattice, reserve(plan.event), streams[0]).value["a"]
    cut = add_share(a_sum(-0.05), plan, lattice, reserve(plan.event), streams[1]).value["a"]
    assert torch.equal(cut - zero, torch.full((DIMENSIONS,), -10))


def test_a_whole_update_needs_room_for_one_site_only(make_privacy):
    whole = make_privacy(
        unit=Unit.SITE,
        mechanism=Mechanism.WHOLE_UPDATE,
        mode=Mode.DISTRIBUTED,
        shares=4,
        sampling_rate=1.0,
        expected_units=1.0,
    )
    lattice = share_lattice(whole, DIMENSIONS, 6, 32)
    assert lattice.limit == math.floor(1.0 / lattice.step)


def test_a_share_is_paid_for_and_fits_its_plan(plan, reserve, stream):
    lattice = share_lattice(plan, DIMENSIONS, 6, 32)
    with pytest.raises(LedgerError, match="charged no more"):
        add_share(a_sum(), plan, lattice, reserve(Gaussian(9.0)), stream)
    with pytest.raises(ValueError, match="bound is 2"):
        add_share(a_sum(bound=2.0), plan, lattice, reserve(plan.event), stream)
    crowd, thin = a_sum(dimensions=800), replace(lattice, sigma=lattice.sigma * 0.99)
    with pytest.raises(ValueError, match="800 coordinates call for more"):
        add_share(crowd, plan, thin, reserve(plan.event), stream)
    with pytest.raises(ValueError, match="goes into a secure sum"):
        plan.privatise(a_sum(), reserve(plan.event), stream)
    with pytest.raises(ValueError, match="only distributed noise"):
        share_lattice(replace(plan, mode=Mode.LOCAL, shares=1, honest_hospitals=1), 1, 6, 32)


@pytest.mark.parametrize(
    ("changes", "dimensions", "hospitals", "says"),
    [
        ({"noise_multiplier": 2e3}, 10**10, 6, "do not fit into 32 bits"),
        ({"noise_multiplier": 2.0, "expected_units": 1e7}, 10, 64, "steps wide"),
    ],
)
def test_what_does_not_fit_is_refused(plan, changes, dimensions, hospitals, says):
    with pytest.raises(PolicyRefused, match=says):
        share_lattice(replace(plan, **changes), dimensions, hospitals, 32)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"mode": Mode.LOCAL}, "shares is 4; it must be 1 unless"),
        ({"shares": 0}, "shares is 0"),
        ({"honest_hospitals": 5}, "honest_hospitals is 5; it must be in 1..4"),
        ({"steps": 2}, "steps is 2; it must be 1 for distributed"),
        ({"mechanism": Mechanism.ONE_SHOT}, "goes with dp-sgd or whole-update"),
    ],
)
def test_plans_whose_shares_would_not_add_up(plan, changes, says):
    with pytest.raises(ValueError, match=says):
        replace(plan, **changes)


def test_distributed_noise_has_a_fixed_clip_norm(make_privacy):
    with pytest.raises(ValueError, match="remove adaptive"):
        make_privacy(mode=Mode.DISTRIBUTED, shares=4, steps=1, adaptive=AdaptiveClip())


def test_a_share_needs_a_secure_sum_of_as_many(make_plan, plan):
    fields = {name: getattr(plan, name) for name in vars(plan)}
    assert make_plan(fields, secure=SECURE).secure == SECURE
    with pytest.raises(ValueError, match="needs a secure sum"):
        make_plan(fields)
    with pytest.raises(ValueError, match="shares is 4; it must be threshold, 5"):
        make_plan(fields, secure=replace(SECURE, threshold=5))


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"bits": 16}, "bits"), ({"largest": 0.0}, "largest"), ({"hospitals": 9}, "threshold")],
)
def test_secure_sums_that_cannot_be(changes, says):
    with pytest.raises(ValueError, match=says):
        replace(SECURE, **changes)


POLICY = """
[budget]
epsilon = 8.0
delta = 1e-5
[allow]
tasks = ["editing"]
bases = ["{base}"]
strategies = ["fedavg"]
min_noise_multiplier = 0.5
max_rounds = 10
min_units = 50
{extra}
[data]
name = "notes"
declared_units = 200
"""


def policy_of(folder, extra=""):
    path = folder / "policy.toml"
    path.write_text(POLICY.format(base="b" * 64, extra=extra), encoding="utf-8")
    return Policy.read(path)


def test_a_policy_counts_on_nobody_else_unless_told(tmp_path, make_plan, plan):
    asked = make_plan(vars(plan), secure=SECURE)
    refused = policy_of(tmp_path).decide(asked, compose())
    assert refused.reasons == ("[allow] honest_hospitals is 1; the plan counts on the noise of 3",)
    assert policy_of(tmp_path, "honest_hospitals = 3").decide(asked, compose()).allowed
    alone = make_plan(vars(replace(plan, honest_hospitals=1)), secure=SECURE)
    assert policy_of(tmp_path).decide(alone, compose()).allowed


def test_a_policy_may_want_secure_sums_only(tmp_path, make_plan):
    policy = policy_of(tmp_path, "secure_sums_only = true")
    assert "secure_sums_only is true" in policy.decide(make_plan(), compose()).reasons[0]
    assert policy.decide(make_plan(secure=SECURE), compose()).allowed
    with pytest.raises(BadInput, match="honest_hospitals is 0"):
        policy_of(tmp_path, "honest_hospitals = 0")


def a_report(make_plan, plan, rounds=3):
    """A signed report after some rounds."""
    asked = make_plan(vars(plan), secure=SECURE)
    spent = Repeated(plan.step_event, rounds)
    other = Repeated(PoissonSampled(0.1, Gaussian(1.5)), 2)
    standing = Standing(
        "north", "notes", "private", 200, 8.0, 1e-5, spent, compose(spent, other),
        LedgerHead(4, "a" * 64),
    )  # fmt: skip
    return sign_report(hospital_report(asked, standing), SigningKey.generate())


def test_every_guarantee_is_reported_and_one_is_charged(make_plan, plan):
    """The oracle is the accountant on the same rounds with the noise of so many shares."""
    report = a_report(make_plan, plan)
    assert [row["relies_on"] for row in report["guarantees"]] == [1, 3, 4]
    assert [row["charged"] for row in report["guarantees"]] == [False, True, False]
    for row in report["guarantees"]:
        multiplier = 2.0 * math.sqrt(row["relies_on"] / 4)
        event = Repeated(PoissonSampled(0.05, Gaussian(multiplier)), 3)
        assert row["noise_multiplier"] == pytest.approx(multiplier)
        assert row["epsilon_study"] == pytest.approx(epsilon(event, 1e-5), rel=1e-9)
    assert report["guarantees"][1]["epsilon_study"] == report["epsilon_study"]
    check_report(report)


def test_a_changed_guarantee_is_noticed(make_plan, plan):
    key = SigningKey.generate()
    report = a_report(make_plan, plan)
    rows = [dict(row) for row in report["guarantees"]]
    rows[0]["epsilon_study"] = 0.1
    with pytest.raises(BadMessage, match=r"epsilon_study is 0\.1 relying on 1"):
        check_report(sign_report(report | {"guarantees": rows}, key))
    rows = [dict(row, noise_multiplier=9.0) for row in report["guarantees"]]
    with pytest.raises(BadMessage, match=r"noise_multiplier is 9\.0"):
        check_report(sign_report(report | {"guarantees": rows}, key))


def test_infinite_guarantees_are_none(make_plan, plan):
    weak = replace(plan, noise_multiplier=2e-3, honest_hospitals=2)
    rows = guarantees(weak, weak.event, 1e-5, lambda event, delta: math.inf)
    assert [row["epsilon_study"] for row in rows] == [None] * 4
    assert [row["relies_on"] for row in rows] == [1, 2, 3, 4]
    assert "together with 2 of the hospitals" in rows[1]["against"]


def test_only_steps_of_that_noise_are_read_again():
    event = compose(Gaussian(2.0), PoissonSampled(0.1, Gaussian(2.0)), Gaussian(3.0))
    expected = compose(Gaussian(1.0), PoissonSampled(0.1, Gaussian(1.0)), Gaussian(3.0))
    assert reread(event, 2.0, 1.0) == expected


def test_local_noise_has_one_guarantee(make_plan, make_privacy):
    assert guarantees(make_privacy(), make_privacy().event, 1e-5, epsilon) == []


def test_what_officers_read_names_the_assumption(make_plan, plan):
    report = a_report(make_plan, plan)
    risk = {"most_true_positives": [{"false_positives": 0.01, "true_positives": 0.2}]}
    assert "while 3 hospitals are honest" in plain_summary(report, risk)
    assert "counts on 3 of them" in next(
        p["answer"] for p in nist_points(report) if p["point"] == "Trust model"
    )
    assert "3 hospitals' noise together" in threats(report)[0].how
    local = a_report(make_plan, replace(plan, honest_hospitals=1))
    assert "everything this hospital ever sent" in plain_summary(local, risk)
    assert "nobody outside it is trusted" in str(nist_points(local))
    assert "noise is added inside" in threats(local)[0].how


def test_the_sum_is_what_it_would_be_without_masks(plan, reserve, stream):
    """Six shares as words, added modulo 2**32, are the sum of the whole numbers."""
    from wardround.privacy.secagg.lattice import from_words, to_words

    lattice = share_lattice(plan, DIMENSIONS, 6, 32)
    shares = [add_share(a_sum(0.05), plan, lattice, reserve(plan.event), stream) for _ in range(6)]
    words = np.sum([to_words(s.value, 32) for s in shares], axis=0, dtype=np.uint32)
    total = from_words(words, {"a": torch.Size([DIMENSIONS])}, 32)["a"]
    assert torch.equal(total, sum(s.value["a"] for s in shares))
