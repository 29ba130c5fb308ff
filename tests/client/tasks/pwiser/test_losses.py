"""The pairwise loss against hand computation, a double loop, and a neighbouring definition."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.client.tasks.pwiser.config import pwiser_config
from wardround.client.tasks.pwiser.losses import (
    Pairwise,
    Surrogate,
    pairs_within,
    saddle_rows,
    violation,
)
from wardround.client.tasks.pwiser.rows import against_anchors, within
from wardround.privacy.errors import BadInput, PolicyRefused


def one_unit(scores: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(scores), dtype=torch.long)


def by_loops(pairwise, scores, outcomes, units, count):
    """The definition, pair by pair."""
    costs = {
        Surrogate.HINGE: lambda short: max(0.0, short),
        Surrogate.SQUARED_HINGE: lambda short: max(0.0, short) ** 2,
        Surrogate.LOGISTIC: lambda short: math.log1p(math.exp(short)),
        Surrogate.SQUARE: lambda short: short**2,
    }
    cost = costs[pairwise.surrogate]
    found = [0.0] * count
    for unit in range(count):
        rows = [place for place in range(len(scores)) if units[place] == unit]
        for kind, margin, weight in (
            (1, pairwise.margin_click, pairwise.weight_click),
            (0, pairwise.margin_skip, pairwise.weight_skip),
        ):
            pairs = [
                cost(margin - (float(scores[i]) - float(scores[j])))
                for i, j in itertools.product(rows, rows)
                if outcomes[i] == 2 and outcomes[j] == kind
            ]
            found[unit] += weight * sum(pairs) / len(pairs) if pairs else 0.0
    return found


def test_hand_case(kinds_of) -> None:
    # p = .9 taken up, .6 and .5 looked at, .2 skipped; margins .4 and .8:
    # (.1 + 0) / 2 = .05 and .8 - .7 = .1.
    scores = torch.tensor([0.9, 0.6, 0.5, 0.2], dtype=torch.float64)
    pairwise = Pairwise(margin_click=0.4, margin_skip=0.8)
    found = within(pairwise, scores, kinds_of([2, 1, 1, 0]), one_unit(scores), 1)
    assert float(found) == pytest.approx(0.15, abs=1e-12)


def test_neighbouring_definition_of_ranking_libraries() -> None:
    # TensorFlow Ranking's documentation: labels [1, 0], scores [.6, .8]; hinge with margin 1 sums
    # to 1.2 and the logistic pair costs .79814.
    unit = torch.zeros(1, dtype=torch.long)
    leading = torch.tensor([0.6], dtype=torch.float64), unit
    trailing = torch.tensor([0.8], dtype=torch.float64), unit
    hinge = pairs_within(Surrogate.HINGE, 1.0, leading, trailing, 1)
    logistic = pairs_within(Surrogate.LOGISTIC, 0.0, leading, trailing, 1)
    assert float(hinge) == pytest.approx(1.2, abs=1e-12)
    assert float(logistic) == pytest.approx(2 * 0.39906943, abs=1e-7)


def test_zero_when_every_margin_is_kept(kinds_of) -> None:
    scores = torch.tensor([0.9, 0.8, 0.5, 0.3], dtype=torch.float64)
    found = within(Pairwise(), scores, kinds_of([2, 2, 1, 0]), one_unit(scores), 1)
    assert float(found) == 0.0


@pytest.mark.parametrize("outcomes", [[1, 0, 0], [2, 2, 2], [2, 1, 1], [0, 0, 0], [2, 0, 0]])
def test_a_kind_that_is_missing_costs_nothing(kinds_of, outcomes) -> None:
    scores = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64, requires_grad=True)
    pairwise = Pairwise(surrogate=Surrogate.LOGISTIC)
    found = within(pairwise, scores, kinds_of(outcomes), one_unit(scores), 1).sum()
    if {2} < set(outcomes):  # one term is there
        assert float(found.detach()) > 0
        return
    assert float(found.detach()) == 0.0
    (gradient,) = torch.autograd.grad(found, scores, allow_unused=True)
    assert gradient is None or not gradient.any()


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 3), st.floats(-3, 3)), min_size=1, max_size=24
    ),
    st.sampled_from(list(Surrogate)),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_equals_the_double_loop(kinds_of, rows, surrogate) -> None:
    outcomes, units, values = ([row[place] for row in rows] for place in range(3))
    scores = torch.tensor(values, dtype=torch.float64)
    pairwise = Pairwise(surrogate=surrogate, weight_click=0.7, weight_skip=1.3)
    found = within(pairwise, scores, kinds_of(outcomes), torch.tensor(units), 4)
    wanted = torch.tensor(by_loops(pairwise, scores, outcomes, units, 4), dtype=torch.float64)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_gradient_of_the_hinge_mean(kinds_of) -> None:
    # Each active pair of |P||K| puts -1/(|P||K|) on the leader and + on the other.
    scores = torch.tensor([0.5, 0.45, 0.48, 0.1], dtype=torch.float64, requires_grad=True)
    pairwise = Pairwise(margin_click=0.1, margin_skip=0.1, weight_skip=0.0)
    within(pairwise, scores, kinds_of([2, 1, 1, 1]), one_unit(scores), 1).sum().backward()
    expected = torch.tensor([-2 / 3, 1 / 3, 1 / 3, 0.0], dtype=torch.float64)
    torch.testing.assert_close(scores.grad, expected)
    assert float(scores.grad.sum()) == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize("surrogate", [Surrogate.SQUARE, Surrogate.LOGISTIC])
def test_gradients_by_finite_differences(kinds_of, surrogate) -> None:
    scores = torch.tensor([0.9, 0.2, -0.4, 0.5, 0.1], dtype=torch.float64, requires_grad=True)
    pairwise, kinds = Pairwise(surrogate=surrogate), kinds_of([2, 1, 0, 2, 0])
    units = torch.tensor([0, 0, 0, 1, 1])
    assert torch.autograd.gradcheck(lambda s: within(pairwise, s, kinds, units, 2), (scores,))


def test_order_and_repetition_do_not_matter(kinds_of) -> None:
    scores, outcomes = torch.tensor([0.4, 0.6, 0.1, 0.3]).double(), [2, 1, 0, 2]
    pairwise = Pairwise(margin_click=0.2)
    plain = within(pairwise, scores, kinds_of(outcomes), one_unit(scores), 1)
    order = [2, 0, 3, 1]
    mixed = within(
        pairwise, scores[order], kinds_of([outcomes[p] for p in order]), one_unit(scores), 1
    )
    doubled = torch.cat([scores, scores])
    twice = within(pairwise, doubled, kinds_of(outcomes * 2), one_unit(doubled), 1)
    torch.testing.assert_close(mixed, plain)
    torch.testing.assert_close(twice, plain)


def test_square_taken_apart_is_the_mean_over_all_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(40, generator=generator, dtype=torch.float64)
    leading = torch.arange(40) < 7
    trailing = torch.arange(40) >= 15
    p, n, margin = scores[leading], scores[trailing], 0.3
    pairs = (margin - (p.unsqueeze(1) - n)).square().mean()
    shares = float(leading.double().mean()), float(trailing.double().mean())

    def at(a: float, b: float, alpha: float) -> float:
        values = torch.tensor([a, b, alpha], dtype=torch.float64).expand(40, 3)
        return float(saddle_rows(margin, scores, leading, trailing, values, shares).mean())

    a, b = float(p.mean()), float(n.mean())
    assert at(a, b, b - a) == pytest.approx(float(pairs), abs=1e-10)
    # A saddle: any other a or b is worse, any other alpha is less.
    assert at(a + 0.1, b, b - a) > float(pairs)
    assert at(a, b - 0.1, b - a) > float(pairs)
    assert at(a, b, b - a + 0.1) < float(pairs)


def test_anchored_terms_by_hand(kinds_of) -> None:
    # Taken up .5 against anchors .3 and .1: .1 - .2 < 0 costs 0, .3 - .4 < 0 costs 0; looked at .55
    # against .6: .1 - .05 = .05; skipped .4 against .6: .3 - .2 = .1.
    scores = torch.tensor([0.5, 0.55, 0.4], dtype=torch.float64)
    found = against_anchors(Pairwise(), scores, kinds_of([2, 1, 0]), one_unit(scores), 1)
    assert float(found) == pytest.approx(0.15, abs=1e-12)


def test_what_a_pair_costs() -> None:
    short = torch.tensor([-1.0, 0.5])
    assert violation(Surrogate.HINGE, short).tolist() == [0.0, 0.5]
    assert violation(Surrogate.SQUARED_HINGE, short).tolist() == [0.0, 0.25]
    assert violation(Surrogate.SQUARE, short).tolist() == [1.0, 0.25]


@pytest.mark.parametrize("form", ["in-batch", "all-pairs"])
def test_pairs_across_units_are_refused(form) -> None:
    with pytest.raises(PolicyRefused, match="two units"):
        pwiser_config({"pairwise": {"form": form}})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"pairwise": {"margin_click": 0.4}}, "margin_click is 0.4 and margin_skip 0.3"),
        ({"pairwise": {"margin_skip": 1.5}}, "margin_skip is 1.5"),
        ({"pairwise": {"form": "square"}}, "needs surrogate 'square'"),
        ({"pairwise": {"strength": -1}}, "strength is -1"),
        ({"layout": "custom"}, "belong together"),
        ({"layout": "custom", "columns": {}}, "names no feature"),
        ({"vocabulary": 0}, "vocabulary is 0"),
    ],
)
def test_settings_that_cannot_be_used(table, message) -> None:
    with pytest.raises(BadInput, match=message):
        pwiser_config(table)
