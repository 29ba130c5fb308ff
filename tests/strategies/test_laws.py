"""Published laws of federated LoRA: covariance, noise, ranks, bytes; E1 to E5 of the comparison.

Statistical tests draw 200 times from fixed seeds and compare a mean of squares with its closed
form; the smallest has 64 · 8 · 200 squared normals, whose mean has a relative deviation of 0.44 %,
so a margin of 3 % is 6.8 deviations: a false alarm in 10^11.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from wardround.privacy.errors import BadInput
from wardround.strategies.base import Update
from wardround.strategies.codec import encode
from wardround.strategies.factors import background, product
from wardround.strategies.low_rank import Product, stack
from wardround.strategies.registry import find_listing, make_strategy, require_secure_aggregation

M, N, R = 64, 96, 8
DRAWS = 200


def layer(a_scale: float = 1.0) -> dict[str, torch.Tensor]:
    """One layer in use: A of entries about 1 / sqrt(n), B as large."""
    generator = torch.Generator().manual_seed(11)
    return {
        "w.lora_A.weight": a_scale * torch.randn(R, N, generator=generator) / math.sqrt(N),
        "w.lora_B.weight": torch.randn(M, R, generator=generator) / math.sqrt(N),
    }


def squared_noise(name: str, deviation: float, hospitals: int = 1) -> tuple[float, dict[str, Any]]:
    """Mean squared change of B·A when every hospital sends nothing but noise; and the state."""
    strategy = make_strategy(name)
    state = strategy.start(layer())
    generator = torch.Generator().manual_seed(5)
    total = 0.0
    for _ in range(DRAWS):
        aggregation = strategy.begin(state, 1)
        brief = strategy.brief(state, 1)
        before = whole(strategy.deploy(state))
        for number in range(hospitals):
            change = {
                n: deviation * torch.randn(brief.arrays[n].shape, generator=generator)
                for n in brief.trains
            }
            aggregation.add(Update(f"h{number}", change))
        after = whole(strategy.deploy(aggregation.finish()))
        total += float((after - before).square().sum())
    return total / DRAWS, dict(state)


def whole(model: Any) -> torch.Tensor:
    """What the layer adds, multiplied out in float64."""
    behind = background(model.background, "w")
    parts = [product(model.arrays, "w")] + ([] if behind is None else [behind])
    both = stack(parts)
    return both.left @ both.right


def linear(state: dict[str, Any]) -> float:
    """m ||A||² + n ||B||², the factor of s² when both factors are noised."""
    a, b = state["w.lora_A.weight"], state["w.lora_B.weight"]
    return M * float(a.square().sum()) + N * float(b.square().sum())


@pytest.mark.parametrize("deviation", [1e-3, 1e-2, 1e-1, 1.0])
def test_noise_of_both_factors_meets_itself(deviation: float) -> None:
    """E4: E||noise of BA||² = s² (m||A||² + n||B||²) + s⁴ m n r."""
    measured, state = squared_noise("fedavg", deviation)
    law = deviation**2 * linear(state) + deviation**4 * M * N * R
    assert measured == pytest.approx(law, rel=0.03)


@pytest.mark.parametrize("deviation", [1e-3, 1e-2, 1e-1, 1.0])
@pytest.mark.parametrize("name", ["ffa", "fedsvd", "rolora"])
def test_noise_of_one_factor_does_not(name: str, deviation: float) -> None:
    """E4: E||noise of BA||² = s² m ||A||², with no term of the fourth order."""
    measured, state = squared_noise(name, deviation)
    law = deviation**2 * M * float(state["w.lora_A.weight"].square().sum())
    assert measured == pytest.approx(law, rel=0.03)


def test_noise_of_a_square_core_has_few_numbers() -> None:
    """Between orthonormal factors E||noise of B·R·A||² = s² r², whatever m and n are.

    200 draws of 64 squared normals: a relative deviation of 1.25 %; 8 % is 6.4 of them, 10^-10.
    """
    measured, _ = squared_noise("fed_sb", 0.3)
    assert measured == pytest.approx(0.3**2 * R**2, rel=0.08)


@pytest.mark.parametrize("name", ["flora", "fedex", "flexlora"])
def test_exact_products_average_the_noise_of_products(name: str) -> None:
    """K hospitals: (s² (m||A||² + n||B||²) + s⁴ m n r) / K; FedAvg's s⁴ term falls with K²."""
    deviation, hospitals = 0.5, 4
    measured, state = squared_noise(name, deviation, hospitals)
    quadratic = deviation**4 * M * N * R
    law = (deviation**2 * linear(state) + quadratic) / hospitals
    assert measured == pytest.approx(law, rel=0.03)
    averaged, state = squared_noise("fedavg", deviation, hospitals)
    law = deviation**2 * linear(state) / hospitals + quadratic / hospitals**2
    assert averaged == pytest.approx(law, rel=0.03)


def test_the_quadratic_term_dominates_at_large_noise() -> None:
    """E4: log-log slope 4 against 2 between s = 1 and 10, and a ratio of at least 10 at s = 1."""
    both = [squared_noise("fedavg", s)[0] for s in (1.0, 10.0)]
    one = [squared_noise("ffa", s)[0] for s in (1.0, 10.0)]
    assert math.log10(both[1] / both[0]) == pytest.approx(4, abs=0.1)
    assert math.log10(one[1] / one[0]) == pytest.approx(2, abs=0.03)
    assert both[0] / one[0] >= 10


def test_averaging_is_off_by_the_covariance_of_the_factors(of: Any) -> None:
    """E2: mean(BA) - mean(B) mean(A) = mean (B - B̄)(A - Ā), of rank (K - 1) r at most."""
    made = of("fedex")
    updates = [made.update(hospital) for hospital in made.hospitals]
    start = {n: a.double() for n, a in made.state.items()}
    factors = [{n: start[n] + change for n, change in update.change.items()} for update in updates]
    b = torch.stack([f["down.lora_B.weight"] for f in factors])
    a = torch.stack([f["down.lora_A.weight"] for f in factors])
    wrong = (b @ a).mean(0) - b.mean(0) @ a.mean(0)
    covariance = ((b - b.mean(0)) @ (a - a.mean(0))).mean(0)
    assert float((wrong - covariance).norm() / wrong.norm()) < 1e-10
    assert int(torch.linalg.matrix_rank(wrong)) <= (len(updates) - 1) * 4
    made.run(updates)
    residual = background(made.state, "down")
    assert residual is not None
    assert residual.rank == (len(updates) - 1) * 4  # not K r: the deviations of B add up to zero
    found = residual.left @ residual.right
    assert float((found - wrong).norm() / wrong.norm()) < 1e-6  # stored in float32


def test_truncation_loses_less_with_more_columns(of: Any) -> None:
    """E1: what FlexLoRA sends down misses less the more columns it has, nothing at K r of them."""
    lost = []
    for rank in (2, 4, 8, 16, 20):
        made = of("flexlora", rank=20, ranks=dict.fromkeys(("a", "b", "c", "d", "e"), 4))
        made.hospitals = ("a", "b", "c", "d", "e")
        made.round_error()
        wanted, brief = made.deployed(), made.strategy.brief(made.state, 2, rank)
        got = product(brief.arrays, "down")
        away = (got.left @ got.right - wanted["down"]).norm() / wanted["down"].norm()
        lost.append(float(away))
    assert lost == sorted(lost, reverse=True)
    assert lost[0] > 0.1
    assert lost[-1] < 1e-5


def test_zero_padding_is_far_off(of: Any) -> None:
    """E3: averaging factors of ranks 2, 4, 8, 8, 16 filled up with zeros misses by over 0.3."""
    generator = torch.Generator().manual_seed(2)
    left = torch.zeros(48, 16, dtype=torch.float64)
    right = torch.zeros(16, 40, dtype=torch.float64)
    exact = torch.zeros(48, 40, dtype=torch.float64)
    for rank in (2, 4, 8, 8, 16):
        b = torch.randn(48, rank, generator=generator).double()
        a = torch.randn(rank, 40, generator=generator).double()
        left[:, :rank] += b / 5
        right[:rank] += a / 5
        exact += b @ a / 5
    assert float((left @ right - exact).norm() / exact.norm()) > 0.3


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("fedavg", 8 * (768 + 2304)),
        ("flora", 8 * (768 + 2304)),
        ("ffa", 8 * 2304),
        ("rolora", 8 * 2304),
        ("fedsa", 8 * 768),
        ("fed_sb", 8 * 8),
    ],
)
def test_what_leaves_a_gpt2_hospital(name: str, numbers: int) -> None:
    """E5: r(m+n) float32 a c_attn matrix (768 to 2304) and under 2 % more; 12 layers, rank 8."""
    arrays = {}
    for block in range(12):
        path = f"base_model.model.transformer.h.{block}.attn.c_attn"
        arrays[f"{path}.lora_A.weight"] = torch.ones(8, 768)
        arrays[f"{path}.lora_B.weight"] = torch.ones(2304, 8)
    strategy = make_strategy(name)
    brief = strategy.brief(strategy.start(arrays), 1)
    sent = encode({"kind": "update"}, brief.expects)
    exact = 12 * numbers * 4
    margin = 0.02 if name != "fed_sb" else 0.6  # 256 bytes a matrix: names weigh as much
    assert exact <= len(sent) < exact * (1 + margin)
    assert 124_439_808 * 4 / len(sent) > 100  # GPT-2's own parameters; FedAvg: 422 times fewer


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("flora", "not linear"),
        ("fedex", "not linear"),
        ("flexlora", "not linear"),
        ("fedsa", "a part is to stay at home"),
    ],
)
def test_what_a_secure_sum_cannot_hold_is_refused(name: str, reason: str) -> None:
    """E16: with the reason, and what can be used instead."""
    with pytest.raises(BadInput, match=f"'{name}'.*{reason}.*use one of .*rolora"):
        require_secure_aggregation(name)
    require_secure_aggregation("rolora")


def test_frozen_factors_send_half(of: Any) -> None:
    """RoLoRA's two rounds together send what FedAvg sends in one."""
    sent = {
        n: sum(a.numel() for a in of(n).brief("east").expects.values()) - 6
        for n in ("fedavg", "ffa", "rolora")
    }
    made = of("rolora")
    made.round_error()
    second = sum(a.numel() for a in made.brief("east").expects.values()) - 6
    assert sent["rolora"] == sent["ffa"]
    assert sent["rolora"] + second == sent["fedavg"]


def test_an_orthonormal_core_stays_in_its_square(of: Any) -> None:
    """What Fed-SB adds is B·R·A with the B and A of the start, orthonormal both."""
    made = of("fed_sb")
    made.round_error()
    a, b = made.state["down.lora_A.weight"], made.state["down.lora_B.weight"]
    eye = torch.eye(4)
    torch.testing.assert_close(a @ a.T, eye, rtol=0, atol=1e-6)
    torch.testing.assert_close(b.T @ b, eye, rtol=0, atol=1e-6)
    assert find_listing("fed_sb").traits.bytes_up == "r²"


def test_fresh_factors_are_drawn_again_the_same(of: Any) -> None:
    """FLoRA's A of a round is public and the same after a restart, and another in each round."""
    first, second = of("flora"), of("flora")
    first.round_error()
    second.round_error()
    name = "down.lora_A.weight"
    assert torch.equal(first.state[name], second.state[name])
    before = first.state[name]
    first.round_error()
    assert not torch.equal(first.state[name], before)
    assert float(before.abs().max()) <= 1 / math.sqrt(40)


def test_what_flexlora_cuts_is_lost_unless_kept(of: Any) -> None:
    ranks = dict(zip(("east", "north"), (2, 4), strict=True))
    errors = {}
    for keep in (False, True):
        made = of("flexlora", ("east", "north"), ranks=ranks, keep_rest=keep)
        made.round_error()
        brief = made.brief("east")
        held = brief.background
        got = stack([product(brief.arrays, "down"), *([background(held, "down")] if held else [])])
        wanted = made.deployed()["down"]
        errors[keep] = float((got.left @ got.right - wanted).norm() / wanted.norm())
    assert errors[True] < 1e-6
    assert errors[False] > 0.05


def test_rank_of_a_product_is_its_columns() -> None:
    assert Product(torch.zeros(3, 2), torch.zeros(2, 4)).rank == 2
