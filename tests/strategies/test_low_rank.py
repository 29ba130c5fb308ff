"""Products as factors, against the dense matrices they stand for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.strategies.low_rank import (
    Product,
    bounded,
    compress,
    difference,
    split,
    stack,
    turned,
)


def draw(m: int, n: int, rank: int, seed: int = 3) -> Product:
    """Standard normal factors."""
    generator = torch.Generator().manual_seed(seed)
    options = {"generator": generator, "dtype": torch.float64}
    return Product(torch.randn(m, rank, **options), torch.randn(rank, n, **options))


def dense(product: Product) -> torch.Tensor:
    """The oracle."""
    return product.left @ product.right


@settings(deadline=None, max_examples=60)
@given(
    m=st.integers(1, 12),
    n=st.integers(1, 12),
    ranks=st.lists(st.integers(0, 14), min_size=1, max_size=4),
)
def test_stacking_and_compressing_lose_nothing(m: int, n: int, ranks: list[int]) -> None:
    parts = [draw(m, n, rank, seed) for seed, rank in enumerate(ranks)]
    whole = stack([part.scaled(0.5) for part in parts])
    wanted = 0.5 * sum(dense(part) for part in parts)
    small = compress(whole)
    assert small.rank <= min(m, n, whole.rank)
    # float64: at most 56 products of standard normals and two orthogonal changes of basis
    torch.testing.assert_close(dense(whole), wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(dense(small), wanted, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(dense(bounded(whole)), wanted, rtol=1e-10, atol=1e-10)
    assert difference(whole, small).norm() < 1e-10 * (1 + whole.norm())


def test_the_first_columns_are_the_best_of_that_rank() -> None:
    """Eckart and Young (1936): what truncation leaves out are the smallest singular values."""
    product = draw(30, 20, 9)
    values = torch.linalg.svdvals(dense(product))
    head, tail = split(compress(product), 4)
    assert head.rank == 4
    assert tail.norm() == pytest.approx(float(values[4:9].square().sum().sqrt()), rel=1e-10)
    even = head.left.square().sum(0) - head.right.square().sum(1)
    assert float(even.abs().max()) < 1e-10  # both factors carry the same share


def test_turning_keeps_the_product_and_the_row_space() -> None:
    """E14: both to 1e-10; right singular vectors are no larger a subspace than there was."""
    product = draw(40, 25, 6)
    after = turned(product)
    assert after.rank == 6
    assert float((dense(after) - dense(product)).norm() / dense(product).norm()) < 1e-10
    gram = after.right @ after.right.T
    torch.testing.assert_close(gram, torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-12)
    rows, _ = torch.linalg.qr(product.right.T)
    outside = after.right.T - rows @ (rows.T @ after.right.T)
    assert float(outside.norm()) < 1e-10


def test_factors_of_two_ranks_are_no_product() -> None:
    with pytest.raises(ValueError, match="ranks 3 and 2"):
        Product(torch.zeros(4, 3), torch.zeros(2, 5))
