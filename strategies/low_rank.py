"""Products B·A kept as their factors: stack, compress, truncate and measure, never multiplied out.

Everything is thin QR of the factors and an SVD of a matrix no larger than their common rank, in
float64; no array of the product's shape (m, n) is ever made. Source for QR before SVD: Halko,
Martinsson and Tropp (2011), section 5.1; for stacking: Wang et al. (2024), "FLoRA", section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_NEGLIGIBLE = 1e-12  # singular values this far below the largest are rounding of float64 factors


@dataclass(frozen=True)
class Product:
    """A matrix as two factors, in float64.

    Attributes:
        left: Shape (m, rank).
        right: Shape (rank, n).
    """

    left: Tensor
    right: Tensor

    def __post_init__(self) -> None:
        if self.left.shape[1] != self.right.shape[0]:
            raise ValueError(f"factors of ranks {self.left.shape[1]} and {self.right.shape[0]}")
        object.__setattr__(self, "left", self.left.double())
        object.__setattr__(self, "right", self.right.double())

    @property
    def rank(self) -> int:
        """The number of columns and rows; the matrix' own rank may be lower."""
        return self.left.shape[1]

    def scaled(self, weight: float) -> Product:
        """The product times a number, which goes on one factor only."""
        return Product(self.left, self.right * weight)

    def norm(self) -> float:
        """The Frobenius norm."""
        return float(torch.linalg.matrix_norm(_core(self)[1]))


def stack(products: Sequence[Product]) -> Product:
    """The sum of the products, exactly: factors side by side."""
    return Product(
        torch.cat([product.left for product in products], 1),
        torch.cat([product.right for product in products], 0),
    )


def difference(one: Product, other: Product) -> Product:
    """``one`` minus ``other``."""
    return stack([one, other.scaled(-1.0)])


def compress(product: Product) -> Product:
    """The same matrix with as few columns as it needs, ordered by singular value.

    The singular values are shared evenly: both factors carry their square roots, so neither grows
    at the other's expense over the rounds.
    """
    left, core, right = _core(product)
    u, s, vt = torch.linalg.svd(core, full_matrices=False)
    kept = int((s > _NEGLIGIBLE * s[:1]).sum()) if len(s) else 0
    root = s[:kept].sqrt()
    return Product(left @ (u[:, :kept] * root), (vt[:kept] * root.unsqueeze(1)) @ right)


def turned(product: Product) -> Product:
    """The same matrix, of the same number of columns, with orthonormal rows on the right.

    The rows are the right singular vectors; they span what the rows of the right factor spanned.
    """
    rows, lower = torch.linalg.qr(product.right.T)
    u, s, vt = torch.linalg.svd(product.left @ lower.T, full_matrices=False)
    return Product(u * s, vt @ rows.T)


def split(product: Product, rank: int) -> tuple[Product, Product]:
    """The first ``rank`` columns and rows, and the rest; of a compressed product the best part."""
    head = Product(product.left[:, :rank], product.right[:rank])
    return head, Product(product.left[:, rank:], product.right[rank:])


def bounded(product: Product) -> Product:
    """The product, compressed when it has more columns than its matrix can need."""
    limit = min(product.left.shape[0], product.right.shape[1])
    return compress(product) if product.rank > limit else product


def _core(product: Product) -> tuple[Tensor, Tensor, Tensor]:
    """Orthonormal columns, a small matrix and orthonormal rows whose product it is."""
    left, upper = torch.linalg.qr(product.left)
    right, lower = torch.linalg.qr(product.right.T)
    return left, upper @ lower.T, right.T
