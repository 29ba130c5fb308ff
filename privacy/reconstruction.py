"""DP-LoRA as published: the batch's gradient is clipped, factors A and B apart. To reproduce only.

A batch gradient clipped to C may turn around wholly when one record changes, so the published noise
of ``sigma * C`` protects far less than the same noise on a sum of clipped records. This module has
the mechanism and what it truly costs: a Gaussian of noise multiplier ``sigma / sqrt(2)`` for two
factors when a whole site comes or goes, and half of that when one record changes. No sampler is
stated, so no credit is given for one unless the plan samples by Poisson.
Source: Liu et al. (2023), "Differentially private low-rank adaptation", algorithm 1 as described in
public notes; adjacency, sampler and composition are this project's, because the notes name none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from wardround.privacy._seal import SEAL
from wardround.privacy.clipping import Clipped, clip_factors
from wardround.privacy.units import Unit

LABEL = "reconstruction of DP-LoRA as published: batch gradient clipped, factors apart"


def displacement(unit: Unit) -> float:
    """How many clip norms one group's clipped batch gradient can move.

    A site that leaves takes its gradient along (1); a record that changes can turn it around (2).
    """
    return 1.0 if unit is Unit.SITE else 2.0


def effective_multiplier(sigma: float, unit: Unit, groups: int) -> float:
    """What ``sigma``, the paper's noise scale, is worth as a noise multiplier."""
    return sigma / (displacement(unit) * math.sqrt(groups))


def clip_batch_gradient(
    gradient: Mapping[str, Tensor], groups: Mapping[str, str], clip_norm: float, unit: Unit
) -> Clipped:
    """The mean gradient of a batch, each group of it clipped to ``clip_norm`` on its own.

    Args:
        gradient: By parameter name.
        groups: The group each parameter belongs to; ``A`` and ``B`` in the paper.
        clip_norm: Bound on each group's L2 norm.
        unit: Site or record.

    Privacy: the value's joint norm is ``sqrt(groups)`` clip norms at most; the bound says how far
    it can move, which for a record is twice that, whatever the batch size.
    """
    value: dict[str, Tensor] = {}
    names = sorted(set(groups.values()))
    for group in names:
        part = {name: array for name, array in gradient.items() if groups[name] == group}
        factor = float(clip_factors({n: array[None] for n, array in part.items()}, clip_norm)[0])
        for name, array in part.items():
            value[name] = array.double() * factor if factor else torch.zeros_like(array).double()
    bound = displacement(unit) * clip_norm * math.sqrt(len(names))
    return Clipped({name: value[name] for name in gradient}, bound, unit, seal=SEAL)
