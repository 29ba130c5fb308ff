"""Smooths noised gradients of LoRA factors along a layer's features.

Neighbouring features are taken together with weights 1, 4, 6, 4, 1 over 16, which leaves a smooth
gradient nearly as it is and leaves 70 / 256 of the noise's variance, the sum of the weights'
squares. It looks at noised values only, so it costs no privacy. Source:
Liu et al. (2026), "LA-LoRA", the low-pass filter of algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from wardround.strategies.factors import A, B

WEIGHTS = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
_REACH = len(WEIGHTS) // 2


def smooth(gradient: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The gradient with A smoothed along its rows and B along its columns; the rest as it is."""
    smoothed = dict(gradient)
    for name, array in gradient.items():
        if name.endswith(A):
            smoothed[name] = _rows(array)
        elif name.endswith(B):
            smoothed[name] = _rows(array.T).T
    return smoothed


def _rows(array: Tensor) -> Tensor:
    """Each row filtered, its ends repeated outwards."""
    if array.shape[1] <= _REACH:
        return array
    kernel = torch.tensor([[WEIGHTS]], dtype=array.dtype, device=array.device)
    wide = functional.pad(array.unsqueeze(1), (_REACH, _REACH), mode="replicate")
    return functional.conv1d(wide, kernel).squeeze(1)
