"""LA-LoRA's filter: what it does to a constant, to a peak and to noise."""

from __future__ import annotations

import pytest
import torch

from wardround.client.smoothing import smooth

A, B = "w.lora_A.weight", "w.lora_B.weight"


def test_a_peak_becomes_the_weights_and_a_constant_stays() -> None:
    a = torch.ones(2, 9)
    a[1] = 0.0
    a[1, 4] = 16.0
    found = smooth({A: a})[A]
    assert torch.equal(found[0], torch.ones(9))
    assert torch.equal(found[1], torch.tensor([0.0, 0, 1, 4, 6, 4, 1, 0, 0]))


def test_b_is_smoothed_along_its_columns_and_the_rest_is_left() -> None:
    b, bias = torch.zeros(9, 2), torch.arange(5.0)
    b[4, 0] = 16.0
    found = smooth({B: b, "head.bias": bias})
    assert torch.equal(found[B][:, 0], torch.tensor([0.0, 0, 1, 4, 6, 4, 1, 0, 0]))
    assert not found[B][:, 1].any()
    assert torch.equal(found["head.bias"], bias)


def test_noise_keeps_70_of_256_parts_of_its_variance() -> None:
    """The weights' squares add up to 70 / 256.

    40 rows of 5,000 numbers: a relative deviation below 0.6 % (neighbours are alike); 4 % is
    over six of them.
    """
    noise = torch.randn(40, 5000, generator=torch.Generator().manual_seed(1))
    found = smooth({A: noise})[A]
    assert float(found.square().mean()) == pytest.approx(70 / 256, rel=0.04)


def test_a_layer_too_narrow_to_smooth_is_left() -> None:
    a = torch.arange(4.0).reshape(2, 2)
    assert torch.equal(smooth({A: a})[A], a)
