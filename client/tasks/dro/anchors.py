"""Anchors: where refusal and harmfulness show in a model's states, fixed before training.

A mean and four principal directions span a subspace; a linear probe on its coordinates says how
likely a query is answered, another how harmless it is. All hospitals use the same ones, by
their hash. Source: Zheng et al. (2024), section 4.1 and released ``estimate.py``. Directions point
to *answered* and *harmless*; the refusal direction is minus the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from wardround.client.pinned import WEIGHTS, pinned_arrays
from wardround.client.statistics import save_numbers
from wardround.privacy.errors import BadInput
from wardround.privacy.signing import sha256

EMBEDDED = Path(__file__).parent / "embedded"
COMPONENTS = 4
PARTS = ("mean", "basis", "weights", "biases")


@dataclass(frozen=True)
class Anchors:
    """A subspace of states and two probes on it.

    Attributes:
        mean: Shape ``(hidden,)``.
        basis: Orthonormal rows, shape ``(components, hidden)``.
        weights: Of the probes for answered and harmless, shape ``(2, components)``.
        biases: Likewise, shape ``(2,)``; they cancel in every loss.
    """

    mean: Tensor
    basis: Tensor
    weights: Tensor
    biases: Tensor

    def __post_init__(self) -> None:
        hidden, found = self.mean.shape[0], len(self.basis)
        if self.basis.shape != (found, hidden) or not 0 < found < hidden:
            raise ValueError("basis must be fewer rows than a state has numbers, each of one state")
        if self.weights.shape != (2, found) or self.biases.shape != (2,):
            raise ValueError("weights and biases must be those of two probes on the basis")
        everything = (self.mean, self.basis, self.weights, self.biases)
        if not all(bool(torch.isfinite(part).all()) for part in everything):
            raise ValueError("an anchor is not finite")
        gram = self.basis.double() @ self.basis.double().T
        if not torch.allclose(gram, torch.eye(found, dtype=torch.float64), atol=1e-4):
            raise ValueError("basis is not orthonormal")

    def to(self, like: Tensor) -> Anchors:
        """The same on another device and in another type."""
        return Anchors(*(part.to(like) for part in self._parts))

    @property
    def _parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.mean, self.basis, self.weights, self.biases

    def coordinates(self, states: Tensor) -> Tensor:
        """States in the subspace, shape ``(rows, components)``."""
        return (states - self.mean) @ self.basis.T

    def scores(self, states: Tensor) -> Tensor:
        """Logits of being answered and of being harmless, shape ``(rows, 2)``."""
        return self.coordinates(states) @ self.weights.T + self.biases


def save_anchors(anchors: Anchors, folder: Path, note: str) -> str:
    """Write anchors into a folder that studies can name; returns the hash they name it by.

    ``note`` says what they were made of, for whoever opens the folder.
    """
    values = {
        name: part.float().contiguous() for name, part in zip(PARTS, anchors._parts, strict=True)
    }
    save_numbers(values, folder, "Anchors", note)
    return sha256((folder / WEIGHTS).read_bytes())


def load_anchors(folder: str, wanted: str) -> Anchors:
    """The anchors of an embedded name or a folder.

    Raises:
        BadInput: There are none with this hash.
    """
    shipped = EMBEDDED / folder
    path = str(shipped) if (shipped / WEIGHTS).is_file() else folder
    values = pinned_arrays(path, wanted)
    try:
        return Anchors(*(values[part] for part in PARTS))
    except (KeyError, ValueError) as error:
        raise BadInput(f"[task.anchors] folder {folder!r}: holds no anchors ({error})") from error
