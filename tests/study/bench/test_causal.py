"""The tables of causal graphs: rows of each, small, and the published proteins where they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from wardround.privacy.errors import BadInput
from wardround.strategies.causal.systems import Shape
from wardround.study.bench.causal import (
    noise_multiplier,
    private_rows,
    read_sachs,
    speed_rows,
)

REAL = Path(__file__).parents[3] / "../shared/data"


@pytest.mark.parametrize(
    ("epsilon", "wanted"), [(0.5, 7.032), (1.0, 3.731), (2.0, 1.994), (4.0, 1.081), (8.0, 0.600)]
)
def test_one_release_costs_what_the_analytic_mechanism_says(epsilon: float, wanted: float) -> None:
    """Balle and Wang (2018), analytic Gaussian mechanism, delta 1e-5, sensitivity 1."""
    assert noise_multiplier(epsilon) == pytest.approx(wanted, rel=2e-3)


def test_more_rows_leave_more_of_an_order() -> None:
    none, little, much = private_rows([0, 1], (4,), (20_000,), [(float("inf"), 1), (4.0, 1),
                                                                (0.01, 5)])  # fmt: skip
    assert none["directions"] == 1
    assert none["believed"] == 1
    assert little["directions"] >= 0.9
    assert much["believed"] == 0


def test_speed_is_measured_at_equal_accuracy() -> None:
    shape = Shape(blocks=3, edges=2, least=2, most=3)
    (row,) = speed_rows([3], shape, 600, lambda line: None)
    assert row["prior_precision"] == 1
    assert row["abs_auc"] >= row["direct_auc"] - 0.05
    assert row["ratio"] > 0


def test_proteins_are_read(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no Sachs data"):
        read_sachs(tmp_path)
    if not REAL.is_dir():
        pytest.skip("the measurements are not here")
    names, values, truth = read_sachs(REAL)
    assert values.shape == (7466, 11)
    assert int(truth.sum()) == 20
    assert truth[names.index("akt"), names.index("erk")] == 1
