"""Subspace, probes and the three losses against closed forms and other ways to the same number."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace

import pytest
import torch
from scipy.optimize import minimize

from wardround.client.pinned import WEIGHTS
from wardround.client.statistics import save_numbers
from wardround.client.tasks.dro.anchoring import DECAY, fit_anchors, fit_probe
from wardround.client.tasks.dro.anchors import Anchors, load_anchors, save_anchors
from wardround.client.tasks.dro.losses import LossWeights, terms
from wardround.client.tasks.dro.moments import anchors_of_moments, moment_count, moments
from wardround.privacy.errors import BadInput

EXACT = {"rtol": 1e-9, "atol": 1e-9}  # float64, some hundred terms
HIDDEN = 12


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def anchors():
    return Anchors(
        normal(HIDDEN),
        torch.linalg.qr(normal(HIDDEN, HIDDEN, seed=1)).Q[:4],
        normal(2, 4, seed=2),
        normal(2, seed=3),
    )


@pytest.fixture(scope="module")
def states():
    """States with a few strong directions; half answered, half harmless, not the same half."""
    scales = torch.tensor([9.0, 5, 3, 2, *[0.3] * (HIDDEN - 4)], dtype=torch.float64)
    turned = torch.linalg.qr(normal(HIDDEN, HIDDEN, seed=4)).Q
    plain = normal(80, HIDDEN, seed=5) * scales
    return plain @ turned + 2.0, torch.sigmoid(plain[:, 0]), (plain[:, 1] > 0).double()


def test_basis_is_orthonormal_and_holds_the_principal_components(states):
    """Oracle: eigenvectors of the covariance, up to sign."""
    found = fit_anchors(*states, 4)
    torch.testing.assert_close(found.basis @ found.basis.T, torch.eye(4).double(), **EXACT)
    vectors = torch.linalg.eigh(torch.cov(states[0].T)).eigenvectors.T.flip(0)[:4]
    torch.testing.assert_close(
        (found.basis * vectors).sum(1).abs(), torch.ones(4).double(), **EXACT
    )
    torch.testing.assert_close(found.mean, states[0].mean(0), **EXACT)


def test_probes_find_what_was_planted(states):
    found = fit_anchors(*states, 4)
    said = found.scores(states[0])
    assert float(((said[:, 1] > 0).double() == states[2]).double().mean()) > 0.98
    assert torch.corrcoef(torch.stack([said[:, 0].sigmoid(), states[1]]))[0, 1] > 0.98


def test_probe_is_the_minimum_that_another_optimiser_finds():
    """Oracle: SciPy's BFGS on the same objective; inputs of deviation 1 keep the decay's scale."""
    inputs = normal(60, 3, seed=7)
    inputs = inputs / inputs.std()
    targets = torch.sigmoid(inputs @ torch.tensor([1.0, -2, 0.5]).double() + 0.3)

    def loss(numbers):
        logits = inputs.numpy() @ numbers[:3] + numbers[3]
        both = targets.numpy() * (-logits) + _softplus(logits)
        return float(both.mean() + DECAY * (numbers[:3] ** 2).sum())

    wanted = minimize(loss, [0.0] * 4, tol=1e-12).x
    weights, bias = fit_probe(inputs, targets)
    found = torch.cat([weights, bias[None]])
    # BFGS on finite differences stops at about 1e-5.
    torch.testing.assert_close(found, torch.tensor(wanted), rtol=1e-3, atol=1e-3)


def _softplus(values):
    return torch.nn.functional.softplus(torch.tensor(values)).numpy()


def test_soft_targets_made_by_a_line_cost_their_entropy():
    """Where the targets are a probe's own, its cross-entropy is their entropy, and no less."""
    inputs = normal(200, 2, seed=8)
    targets = torch.sigmoid(inputs @ torch.tensor([1.5, -0.5]).double() - 0.2)
    weights, bias = fit_probe(inputs, targets, decay=0.0)
    said = inputs @ weights + bias
    cost = torch.nn.functional.binary_cross_entropy_with_logits(said, targets)
    entropy = torch.nn.functional.binary_cross_entropy(targets, targets)
    assert float(cost) == pytest.approx(float(entropy), abs=1e-8)


@pytest.mark.parametrize(
    ("states", "labels", "message"),
    [
        (normal(4, HIDDEN), [0, 1, 0, 1], "4 states; more than 4"),
        (normal(9, HIDDEN), [1] * 9, "all harmful or all harmless"),
    ],
)
def test_too_few_queries_make_no_anchors(states, labels, message):
    labels = torch.tensor(labels).double()
    with pytest.raises(ValueError, match=message):
        fit_anchors(states, labels, labels, 4)


def test_projector_is_the_completed_basis_whichever_completion(anchors):
    """L_U by n - 4 coordinates in two random completions, as published, and by the projector."""
    before, after = normal(5, HIDDEN, seed=9), normal(5, HIDDEN, seed=10)
    found = terms(after, before, torch.ones(5), anchors).rest
    for seed in (11, 12):
        rest = normal(HIDDEN - 4, HIDDEN, seed=seed)
        rest = rest - rest @ anchors.basis.T @ anchors.basis
        others = torch.linalg.qr(rest.T).Q.T
        whole = torch.cat([anchors.basis, others])
        torch.testing.assert_close(whole @ whole.T, torch.eye(HIDDEN).double(), **EXACT)
        z, z0 = ((states - anchors.mean) @ whole.T for states in (after, before))
        torch.testing.assert_close(found, (z - z0)[:, 4:].square().mean(1), **EXACT)


def test_nothing_moved_costs_ln_2_twice_and_nothing(anchors):
    states = normal(3, HIDDEN)
    found = terms(states, states, torch.tensor([0.0, 1.0, 0.0]), anchors)
    ln2 = torch.full((3,), math.log(2), dtype=torch.float64)
    torch.testing.assert_close(found.refusal, ln2, **EXACT)
    torch.testing.assert_close(found.harm, ln2, **EXACT)
    assert found.rest.tolist() == [0.0] * 3
    # 0.6931 + 0.01 x 0.6931 + 0.001 x 0, with the published weights.
    assert found.total(LossWeights()).tolist() == pytest.approx([1.01 * math.log(2)] * 3)


def test_biases_cancel(anchors):
    before, after, labels = normal(4, HIDDEN, seed=1), normal(4, HIDDEN, seed=2), torch.ones(4)
    moved = replace(anchors, biases=anchors.biases + 7)
    one, other = (terms(after, before, labels, use) for use in (anchors, moved))
    torch.testing.assert_close(one.refusal, other.refusal, **EXACT)
    torch.testing.assert_close(one.harm, other.harm, **EXACT)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_gradient_through_a_linear_model(anchors, label):
    """For z = A s + c: dL_r/ds = (sigmoid(d) - l) A^T V w_r, and a step has the right sign."""
    matrix, offset, start = normal(HIDDEN, 5, seed=3), normal(HIDDEN, seed=4), normal(5, seed=5)
    prompt = (start + 0.1 * normal(5, seed=6)).requires_grad_()

    def refusal(prompt):
        after, before = (matrix @ s + offset for s in (prompt, start))
        return terms(after[None], before[None], torch.tensor([label]), anchors).refusal[0]

    (found,) = torch.autograd.grad(refusal(prompt), prompt)
    direction = anchors.weights[0] @ anchors.basis
    shift = direction @ (matrix @ (prompt.detach() - start))
    wanted = (torch.sigmoid(shift) - label) * (matrix.T @ direction)
    torch.testing.assert_close(found, wanted, **EXACT)
    stepped = prompt.detach() - 1e-3 * found
    scores = [anchors.scores((matrix @ s + offset)[None])[0, 0] for s in (prompt, stepped)]
    assert (scores[1] > scores[0]) == (label == 1.0)


def test_ablated_terms_do_not_count(anchors):
    before, after = normal(2, HIDDEN, seed=1), normal(2, HIDDEN, seed=2)
    found = terms(after, before, torch.ones(2), anchors)
    torch.testing.assert_close(found.total(LossWeights(harm=0, rest=0)), found.refusal)
    torch.testing.assert_close(found.total(LossWeights(refusal=0, harm=0, rest=2)), 2 * found.rest)
    with pytest.raises(ValueError, match="all 0; nothing would be learnt"):
        LossWeights(0, 0, 0)
    with pytest.raises(ValueError, match="harm is -1; it must be 0 or more"):
        LossWeights(harm=-1)


def test_anchors_are_pinned_by_hash(anchors, tmp_path):
    """A refusal is the same whether there is nothing or something else: it tells of no disk."""
    folder = str(tmp_path / "a")
    found = save_anchors(anchors, tmp_path / "a", "Public.")
    again = load_anchors(folder, found)
    torch.testing.assert_close(again.basis, anchors.basis.float())
    assert save_anchors(anchors, tmp_path / "a", "Public.") == found
    for place in (folder, str(tmp_path / "none")):
        with pytest.raises(BadInput, match="holds no arrays with sha256 000000000000"):
            load_anchors(place, "0" * 64)
    save_numbers({"mean": torch.ones(3)}, tmp_path / "b", "Others", "")
    other = hashlib.sha256((tmp_path / "b" / WEIGHTS).read_bytes()).hexdigest()
    with pytest.raises(BadInput, match="holds no anchors"):
        load_anchors(str(tmp_path / "b"), other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"basis": torch.ones(4, HIDDEN)}, "not orthonormal"),
        ({"weights": torch.ones(1, 4)}, "two probes"),
        ({"mean": torch.full((HIDDEN,), math.nan)}, "not finite"),
        ({"mean": torch.ones(3)}, "fewer rows"),
    ],
)
def test_what_is_no_anchor_is_refused(anchors, change, message):
    with pytest.raises(ValueError, match=message):
        replace(anchors, **change)


def test_moments_are_bounded_and_give_the_anchors_back(states):
    """Without noise: the same subspace, and probes that point the same way."""
    rows, answered, harmless = states
    radius = float(rows.norm(dim=1).max())
    each = torch.stack(
        [
            moments(rows[n : n + 1], answered[n : n + 1], harmless[n : n + 1], radius)
            for n in range(len(rows))
        ]
    )
    assert each.shape == (80, moment_count(HIDDEN))
    assert float(each.norm(dim=1).max()) <= math.sqrt(6)
    far = moments(1e6 * rows[:2], torch.ones(2), torch.ones(2), radius)
    assert float(far.norm()) <= math.sqrt(6) * (1 + 1e-12)
    exact, found = fit_anchors(*states, 4), anchors_of_moments(each.mean(0), HIDDEN, radius)
    torch.testing.assert_close(found.mean, exact.mean, **EXACT)
    overlap = (exact.basis @ found.basis.T).square().sum() / 4
    assert float(overlap) == pytest.approx(1.0, abs=1e-9)
    ours, theirs = (one.weights @ one.basis for one in (found, exact))
    assert torch.nn.functional.cosine_similarity(ours, theirs).min() > 0.9
