"""The three losses of directed representation optimisation, one value a query.

``z`` is a query's state under the soft prompt, ``z0`` under the words it began as, ``l`` 0 for
harmful and 1 for harmless:

    L_r = BCE(sigmoid(f_r(z) - f_r(z0)), l)
    L_h = BCE(sigmoid(f_h(z) - f_h(z0)), l)
    L_U = mean over the other coordinates of (z - z0)^2
    L = L_r + 0.01 L_h + 0.001 L_U

The rest of a state is found by the projector on what the basis does not span: the same as the
published coordinates in a completed basis, whichever completion. Source: Zheng et al. (2024),
section 4.2 and released ``train.py``. Probes' biases cancel.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from wardround.client.tasks.dro.anchors import Anchors


@dataclass(frozen=True)
class LossWeights:
    """The ``[task.loss]`` table; 0 ablates a term.

    Attributes:
        refusal: Of L_r.
        harm: Of L_h.
        rest: Of L_U.
        unlikelihood: Of the bad reply, in vanilla prompt tuning alone.
    """

    refusal: float = 1.0
    harm: float = 0.01
    rest: float = 0.001
    unlikelihood: float = 1.0

    def __post_init__(self) -> None:
        for name in ("refusal", "harm", "rest", "unlikelihood"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        if not self.refusal + self.harm + self.rest:
            raise ValueError("refusal, harm and rest are all 0; nothing would be learnt")


@dataclass(frozen=True)
class Terms:
    """The three losses, each of shape ``(queries,)``."""

    refusal: Tensor
    harm: Tensor
    rest: Tensor

    def total(self, weights: LossWeights) -> Tensor:
        """Their weighted sum."""
        return weights.refusal * self.refusal + weights.harm * self.harm + weights.rest * self.rest


def terms(states: Tensor, before: Tensor, labels: Tensor, anchors: Anchors) -> Terms:
    """The losses of queries.

    Args:
        states: Under the soft prompt, shape ``(queries, hidden)``.
        before: Under the words, likewise.
        labels: 0 for harmful, 1 for harmless, shape ``(queries,)``.
        anchors: Subspace and probes.
    """
    moved = states - before
    inside = moved @ anchors.basis.T
    shifts = inside @ anchors.weights.T
    wanted = labels.to(shifts).unsqueeze(1).expand_as(shifts)
    both = functional.binary_cross_entropy_with_logits(shifts, wanted, reduction="none")
    outside = moved - inside @ anchors.basis
    others = moved.shape[1] - len(anchors.basis)
    return Terms(both[:, 0], both[:, 1], outside.square().sum(1) / others)
