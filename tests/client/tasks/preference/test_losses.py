"""Losses against published vectors: an independent closed form that also agreed with TRL's trainer.

Every value was computed outside this project from the logits below; for twelve of the losses it was
also compared with TRL 1.16's DPOTrainer on a tiny Llama, to 1e-6 relative.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wardround.client.tasks.preference.losses import (
    PAIR_LOSSES,
    Likelihoods,
    LossSettings,
    find_loss,
    odds_ratio,
)
from wardround.privacy.errors import BadInput

CHOSEN, REJECTED = (1, 2), (3, 0, 1)
PUBLISHED = {
    "dpo": (0.647292, {}),
    "hinge": (0.906086, {}),
    "ipo": (16.490614, {}),
    "ipo-normalised": (20.921868, {}),
    "nca": (1.363719, {}),
    "sppo": (41.136071, {}),
    "apo-zero": (0.976528, {}),
    "apo-down": (0.993469, {}),
    "robust": (0.635553, {"label_smoothing": 0.1}),
    "conservative": (0.656684, {"label_smoothing": 0.1}),
    "exo": (0.460377, {"label_smoothing": 0.1}),
    "discopop": (0.875482, {"temperature": 0.05}),
    "dpo-normalised": (0.672076, {}),
    "pref-ft": (0.644481, {}),
    "simpo": (0.721303, {"beta": 2.0, "reward_margin": 0.5}),
}


def likely(logits: Sequence[Sequence[float]], tokens: Sequence[int]) -> Tensor:
    """A sequence's log-likelihood, the textbook way."""
    rows = torch.log_softmax(torch.tensor(logits, dtype=torch.float64), -1)
    return rows[range(len(tokens)), list(tokens)].sum()[None]


def published() -> Likelihoods:
    return Likelihoods(
        chosen=likely([[0.2, 1, -0.5, 0.3], [0, 0.5, 1.5, -1]], CHOSEN),
        rejected=likely(
            [[0.4, -0.2, 0.1, 0.6], [1.2, 0, -0.3, 0.5], [0.3, 0.9, 0.2, -0.4]], REJECTED
        ),
        reference_chosen=likely([[0, 0.5, 0, 0.5], [0.1, 0.2, 1, 0]], CHOSEN),
        reference_rejected=likely([[0, 0, 0, 1], [1, 0.5, 0, 0], [0, 1, 0, 0]], REJECTED),
        chosen_tokens=torch.tensor([2.0], dtype=torch.float64),
        rejected_tokens=torch.tensor([3.0], dtype=torch.float64),
    )


def gains(good: float, bad: float) -> Likelihoods:
    """A pair with these two gains over a reference of likelihood one half a token."""
    base = torch.tensor([-math.log(2)], dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    return Likelihoods(base + good, base + bad, base, base, one, one)


def test_the_published_sums_come_out() -> None:
    pairs = published()
    assert pairs.chosen.item() == pytest.approx(-1.288962, abs=1e-6)
    assert pairs.rejected.item() == pytest.approx(-2.600132, abs=1e-6)
    assert pairs.gain_chosen.item() == pytest.approx(0.677470, abs=1e-6)
    assert pairs.gain_rejected.item() == pytest.approx(-0.261666, abs=1e-6)
    assert pairs.margin.item() == pytest.approx(0.939136, abs=1e-6)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_losses(name: str) -> None:
    value, options = PUBLISHED[name]
    loss = PAIR_LOSSES[name](published(), LossSettings(**options))
    assert loss.shape == (1,)
    assert loss.item() == pytest.approx(value, abs=1e-5 * max(1, value))


def test_orpos_terms() -> None:
    # The odds-ratio term is published; the whole is the mean loss 0.644481 plus beta times it.
    assert odds_ratio(published(), LossSettings()).item() == pytest.approx(0.504548, abs=1e-6)
    whole = PAIR_LOSSES["orpo"](published(), LossSettings(beta=0.1)).item()
    assert whole == pytest.approx(0.644481 + 0.1 * 0.504548, abs=1e-6)


def test_slic_by_hand() -> None:
    # max(0, 0.5 + 1.288962 - 2.600132) = 0 and the chosen reply's own loss 1.288962.
    slic = PAIR_LOSSES["slic"]
    assert slic(published(), LossSettings()).item() == pytest.approx(1.288962, abs=1e-6)
    wide = slic(published(), LossSettings(reward_margin=2.0, regularisation=0.0)).item()
    assert wide == pytest.approx(2.0 - (2.600132 - 1.288962), abs=1e-6)


@pytest.mark.parametrize(
    ("good", "bad", "beta", "dpo", "ipo", "hinge"),
    [
        (0, 0, 0.1, 0.69314718, 25, 1),
        (1, -1, 0.1, 0.59813887, 9, 0.8),
        (1, -1, 0.5, 0.31326169, 1, 0),
        (-2, 1, 0.1, 0.85435524, 64, 1.3),
        (5, -5, 0.5, 0.00671535, 81, 0),
    ],
)
def test_published_scalars(
    good: float, bad: float, beta: float, dpo: float, ipo: float, hinge: float
) -> None:
    found = [
        PAIR_LOSSES[name](gains(good, bad), LossSettings(beta=beta)).item()
        for name in ("dpo", "ipo", "hinge")
    ]
    assert found == pytest.approx([dpo, ipo, hinge], abs=1e-7)


def test_published_gradients() -> None:
    pairs = published()
    for name, slope in (("dpo", -0.047654), ("ipo", -8.121727)):
        leaf = pairs.chosen.clone().requires_grad_()
        moved = Likelihoods(
            leaf, pairs.rejected, pairs.reference_chosen, pairs.reference_rejected,
            pairs.chosen_tokens, pairs.rejected_tokens,
        )  # fmt: skip
        PAIR_LOSSES[name](moved, LossSettings()).sum().backward()  # type: ignore[no-untyped-call]
        assert leaf.grad is not None
        assert leaf.grad.item() == pytest.approx(slope, abs=1e-6)


def test_at_the_reference_dpo_is_ln_2_and_pulls_by_half_of_beta() -> None:
    leaf = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    loss = PAIR_LOSSES["dpo"](Likelihoods(leaf, zero, zero, zero, one, one), LossSettings(beta=0.3))
    loss.sum().backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(math.log(2))
    assert leaf.grad is not None
    assert leaf.grad.item() == pytest.approx(-0.15)


@given(st.floats(-20, 20), st.floats(-20, 20), st.floats(-20, 20), st.floats(0.05, 2))
@settings(max_examples=100, deadline=None)
def test_only_the_margin_counts_for_dpo_and_ipo(
    good: float, bad: float, shift: float, beta: float
) -> None:
    for name in ("dpo", "ipo", "hinge", "conservative"):
        loss, options = PAIR_LOSSES[name], LossSettings(beta=beta)
        before = loss(gains(good, bad), options).item()
        assert loss(gains(good + shift, bad + shift), options).item() == pytest.approx(
            before, rel=1e-6, abs=1e-6
        )


@given(st.floats(-5, 5), st.floats(-5, 5), st.floats(0.01, 0.45))
@settings(max_examples=60, deadline=None)
def test_robust_dpo_is_unbiased_for_the_clean_loss(good: float, bad: float, wrong: float) -> None:
    # Chowdhury et al. (2024), lemma 3.1: the expectation over flipped labels is the clean loss.
    options = LossSettings(label_smoothing=wrong)
    kept = PAIR_LOSSES["robust"](gains(good, bad), options).item()
    flipped = PAIR_LOSSES["robust"](gains(bad, good), options).item()
    clean = PAIR_LOSSES["dpo"](gains(good, bad), LossSettings()).item()
    assert (1 - wrong) * kept + wrong * flipped == pytest.approx(clean, rel=1e-9, abs=1e-9)
    # The conservative loss is the broken twin: its expectation is not the clean loss.
    if abs(good - bad) > 0.5:
        pair = [PAIR_LOSSES["conservative"](gains(*p), options).item() for p in
                ((good, bad), (bad, good))]  # fmt: skip
        assert (1 - wrong) * pair[0] + wrong * pair[1] != pytest.approx(clean, rel=1e-6)


@pytest.mark.parametrize("name", ["aot", "aot-unpaired", "bco", "sft"])
def test_losses_that_couple_people_are_refused_with_the_reason(name: str) -> None:
    with pytest.raises(BadInput, match="couples the pairs of different people"):
        find_loss(name)


def test_an_unknown_loss_suggests_the_nearest() -> None:
    with pytest.raises(BadInput, match="hinge"):
        find_loss("hnge")


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"beta": 0.0}, "beta is 0"),
        ({"label_smoothing": 0.5}, "label_smoothing is 0"),
        ({"reward_margin": -1.0}, "reward_margin is -1"),
    ],
)
def test_settings_out_of_bounds_are_named(options: dict[str, float], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        LossSettings(**options)
