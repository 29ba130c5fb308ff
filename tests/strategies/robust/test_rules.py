"""Robust rules: what they compute, how they move with their input, and what they withstand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, RecordDict
from flwr.serverapp.strategy.fedtrimmedavg import trim_mean
from flwr.serverapp.strategy.multikrum import select_multikrum
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor

from wardround.strategies.robust.base import Rule, TooFewAnswers, gram_matrix
from wardround.strategies.robust.bounded import NormBoundedMean
from wardround.strategies.robust.coordinates import Median, TrimmedMean
from wardround.strategies.robust.geometric import GeometricMedian, weiszfeld_weights
from wardround.strategies.robust.krum import Krum, MultiKrum

Changes = list[dict[str, Tensor]]
Draw = Callable[..., Changes]
RULES = [Median, TrimmedMean, GeometricMedian, Krum, MultiKrum, NormBoundedMean]
TRANSLATES = [Median, TrimmedMean, GeometricMedian, Krum, MultiKrum]


def flat(arrays: dict[str, Tensor]) -> Tensor:
    """All numbers as one float64 vector."""
    return torch.cat([arrays[name].double().flatten() for name in sorted(arrays)])


def result(rule: Rule, changes: Sequence[dict[str, Tensor]]) -> Tensor:
    return flat(rule.combine(changes).arrays)


def matrix(changes: Changes) -> np.ndarray:
    return torch.stack([flat(change) for change in changes]).numpy()


def as_records(changes: Changes) -> list[RecordDict]:
    return [
        RecordDict({"arrays": ArrayRecord({n: torch_array(a) for n, a in change.items()})})
        for change in changes
    ]


def torch_array(array: Tensor) -> Any:
    from flwr.app import Array

    return Array(array.numpy())


def test_the_median_is_numpys(draw: Draw) -> None:
    for count in (3, 4, 7, 8):
        changes = draw(count)
        expected = np.median(matrix(changes), axis=0)
        assert np.allclose(result(Median(), changes), expected, rtol=0, atol=0)


def test_the_trimmed_mean_is_flowers(draw: Draw) -> None:
    for count, malicious in ((5, 1), (8, 2), (9, 4)):
        changes = draw(count)
        # Flower takes a fraction of which it keeps the whole part.
        expected = trim_mean(matrix(changes), malicious / count + 1e-9)
        found = result(TrimmedMean(malicious), changes)
        assert np.allclose(found, expected, rtol=0, atol=1e-14)  # float64, at most 9 adds


@pytest.mark.parametrize(("count", "malicious"), [(5, 1), (8, 1), (9, 3), (12, 4)])
def test_krum_picks_what_flowers_krum_picks(draw: Draw, count: int, malicious: int) -> None:
    for seed in range(5):
        changes = draw(count, seed)
        records = as_records(changes)
        (best,) = select_multikrum(records, malicious, 1)
        weights = Krum(malicious).combine(changes).weights
        assert weights is not None
        assert records[int(weights.argmax())] is best
        chosen = select_multikrum(records, malicious, count - malicious)
        weights = MultiKrum(malicious).combine(changes).weights
        assert weights is not None
        assert {id(r) for r in chosen} == {id(records[i]) for i in weights.nonzero()[:, 0]}


def test_krum_scores_follow_the_definition(draw: Draw) -> None:
    """Written out from section 4 of the paper, over all subsets instead of by sorting."""
    changes, malicious = draw(7, 3), 2
    rows = matrix(changes)
    scores = []
    for i in range(7):
        distances = [float(((rows[i] - rows[j]) ** 2).sum()) for j in range(7) if j != i]
        scores.append(min(sum(c) for c in itertools.combinations(distances, 7 - malicious - 2)))
    weights = Krum(malicious).combine(changes).weights
    assert weights is not None
    assert int(weights.argmax()) == int(np.argmin(scores))


def test_the_geometric_median_minimises_the_sum_of_distances(draw: Draw) -> None:
    """Against scipy's general minimiser; the smoothing may cost 1e-6 of a distance."""
    for seed in range(3):
        changes = draw(6, seed)
        rows = matrix(changes)

        def total(point: np.ndarray, rows: np.ndarray = rows) -> float:
            return float(np.linalg.norm(rows - point, axis=1).sum())

        best = minimize(total, rows.mean(0), method="BFGS", options={"gtol": 1e-9})
        found = result(GeometricMedian(), changes).numpy()
        assert total(found) <= best.fun * (1 + 1e-9)


def test_the_geometric_median_of_triangles() -> None:
    """Fermat's point: the centre of an equilateral one, the corner of an angle over 120 degrees."""

    def median(*points: tuple[float, float]) -> Tensor:
        changes = [{"a": torch.tensor(point)} for point in points]
        return result(GeometricMedian(), changes)

    centre = median((0, 0), (1, 0), (0.5, math.sqrt(3) / 2))
    expected = torch.tensor([0.5, math.sqrt(3) / 6], dtype=torch.float64)
    assert torch.allclose(centre, expected, rtol=0, atol=1e-7)  # corners in float32
    corner = median((0, 0), (1, 0.1), (-1, 0.1))
    assert corner.norm() < 1e-4  # the smoothing rounds the tip off


def test_the_norm_bounded_mean_by_hand() -> None:
    changes = [{"a": torch.tensor([3.0, 4.0])}, {"a": torch.tensor([0.0, 1.0])}]
    found = result(NormBoundedMean(norm_bound=2.5), changes)
    assert torch.allclose(found, torch.tensor([0.75, 1.5], dtype=torch.float64))
    unbounded = result(NormBoundedMean(norm_bound=9.0), changes)
    assert torch.allclose(unbounded, torch.tensor([1.5, 2.5], dtype=torch.float64))


@pytest.mark.parametrize("kind", RULES)
@given(seed=st.integers(0, 2**31), order=st.permutations(range(7)))
@settings(deadline=None, max_examples=20)
def test_order_does_not_matter(kind: type[Rule], seed: int, order: list[int]) -> None:
    generator = torch.Generator().manual_seed(seed)
    changes = [{"a": torch.randn(11, generator=generator)} for _ in range(7)]
    there = result(kind(), changes)
    back = result(kind(), [changes[i] for i in order])
    assert torch.allclose(there, back, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", RULES)
@given(seed=st.integers(0, 2**31), power=st.integers(-20, 20))
@settings(deadline=None, max_examples=20)
def test_scale_goes_through(kind: type[Rule], seed: int, power: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(7, 11, generator=generator)
    there = result(kind(), [{"a": row} for row in rows])
    scaled = result(kind(), [{"a": row * 2.0**power} for row in rows])
    assert torch.allclose(there * 2.0**power, scaled, rtol=1e-7, atol=1e-9 * 2.0**power)


@pytest.mark.parametrize("kind", TRANSLATES)
@given(seed=st.integers(0, 2**31))
@settings(deadline=None, max_examples=20)
def test_translation_goes_through(kind: type[Rule], seed: int) -> None:
    """All but the norm bound, which has an origin."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(7, 11, generator=generator, dtype=torch.float64)
    shift = 4 * torch.randn(11, generator=generator, dtype=torch.float64)
    there = result(kind(), [{"a": row} for row in rows])
    shifted = result(kind(), [{"a": row + shift} for row in rows])
    assert torch.allclose(there + shift, shifted, rtol=0, atol=1e-8)


@pytest.mark.parametrize("kind", RULES)
@given(seed=st.integers(0, 2**31), exponent=st.integers(0, 30), malicious=st.integers(1, 3))
@settings(deadline=None, max_examples=40)
def test_a_minority_cannot_move_the_result_past_its_bound(
    kind: type[Rule], seed: int, exponent: int, malicious: int
) -> None:
    """The bounds that the modules name, with f malicious of n = 2f + 3 and changes up to 1e30."""
    count = 2 * malicious + 3
    generator = torch.Generator().manual_seed(seed)
    honest = torch.randn(count - malicious, 11, generator=generator, dtype=torch.float64)
    centre = honest.mean(0)
    radius = (honest - centre).norm(dim=1).max()
    attack = torch.randn(malicious, 11, generator=generator, dtype=torch.float64) * 10.0**exponent
    rule = kind(malicious)  # type: ignore[call-arg]
    found = result(rule, [{"a": row} for row in torch.cat([attack, honest])])
    slack = 1e-6 * radius
    if kind in (Median, TrimmedMean):
        assert bool((found >= honest.min(0).values - 1e-12).all())
        assert bool((found <= honest.max(0).values + 1e-12).all())
    elif kind is GeometricMedian:
        share = malicious / count
        assert (found - centre).norm() <= (1 - share) / math.sqrt(1 - 2 * share) * radius + slack
    elif kind is Krum:
        diameter = torch.cdist(honest, honest).max()
        factor = math.sqrt((count - malicious - 2) / (count - 2 * malicious - 1))
        assert (honest - found).norm(dim=1).min() <= factor * diameter + slack
    elif kind is MultiKrum:
        # Each of n - f selected scores no worse than the worst honest one, by the same argument.
        diameter = torch.cdist(honest, honest).max()
        factor = math.sqrt((count - malicious - 2) / (count - 2 * malicious - 1))
        assert (found - centre).norm() <= factor * diameter + radius + slack
    else:
        limit = 1.1 * honest.norm(dim=1).max()
        without = (honest * (limit / honest.norm(dim=1).clamp(min=limit))[:, None]).sum(0) / count
        assert (found - without).norm() <= (malicious + count) / count * limit


@pytest.mark.parametrize("kind", [Median, TrimmedMean, GeometricMedian])
def test_a_majority_does_move_it(kind: type[Rule], draw: Draw) -> None:
    """The other side of the breakdown point: with more malicious than honest, all is lost."""
    changes = draw(7)
    bad = [{n: a + 1e6 for n, a in change.items()} for change in changes[:4]]
    assert result(kind(), bad + changes[4:]).abs().min() > 1e5


def test_the_plain_mean_has_no_bound(draw: Draw) -> None:
    """The broken twin of the bound test: one of nine moves a mean as far as it likes."""
    changes = draw(9)
    bad = [{n: a + 1e6 for n, a in changes[0].items()}, *changes[1:]]
    mean = torch.stack([flat(change) for change in bad]).mean(0)
    assert mean.abs().min() > 1e5


@pytest.mark.parametrize("kind", RULES)
def test_too_few_answers_are_an_error(kind: type[Rule], draw: Draw) -> None:
    rule = kind(2)  # type: ignore[call-arg]
    rule.combine(draw(rule.least))
    with pytest.raises(TooFewAnswers, match=rf"{rule.name}.* needs {rule.least} .*; 4 came"):
        rule.combine(draw(4))


@pytest.mark.parametrize("kind", RULES)
def test_identical_changes_come_back(kind: type[Rule], draw: Draw) -> None:
    (change,) = draw(1)
    assert torch.allclose(result(kind(), [change] * 5), flat(change), rtol=1e-12)
    zero = {name: torch.zeros_like(array) for name, array in change.items()}
    assert torch.equal(result(kind(), [zero] * 5), torch.zeros(19, dtype=torch.float64))


def test_a_majority_of_identical_points_wins(draw: Draw) -> None:
    one, *others = draw(6)
    found = result(GeometricMedian(), [one] * 6 + others)
    assert torch.allclose(found, flat(one), rtol=0, atol=1e-12)


def test_weights_come_from_inner_products_alone(draw: Draw) -> None:
    """Any origin gives the same weights, so a product space can stand in for the factors'."""
    rows = torch.stack([flat(change) for change in draw(6)])
    shifted = weiszfeld_weights((rows + 3) @ (rows + 3).T)
    assert torch.allclose(shifted, weiszfeld_weights(gram_matrix(draw(6))), rtol=0, atol=1e-9)


def test_a_bound_must_be_positive() -> None:
    with pytest.raises(ValueError, match="norm_bound is -1"):
        NormBoundedMean(norm_bound=-1)
