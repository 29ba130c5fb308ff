"""Two levels that agree exactly, T from pairs, and what an abstract graph forbids."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.privacy.errors import BadInput
from wardround.strategies.causal.abstraction import (
    AbsLingam,
    AbsSettings,
    Style,
    fit_tau,
    prior_from_abstract,
)
from wardround.strategies.causal.lingam import DirectLingam
from wardround.strategies.causal.scores import graph_scores, prior_scores
from wardround.strategies.causal.systems import (
    Shape,
    System,
    abstract_weights,
    abstraction_error,
    random_system,
    total_effects,
)


def made(seed, **shape):
    settings = {"blocks": 3, "edges": 2, "least": 2, "most": 4} | shape
    return random_system(Shape(**settings), torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 100_000), st.integers(2, 5), st.integers(1, 6), st.booleans())
def test_both_levels_agree(seed, blocks, most, ignored):
    """F T = S G, and for each pair of blocks W_ij s_j = m_ij t_i, to 1e-12 of the entries' size."""
    edges = blocks * (blocks - 1) // 2
    system = made(seed, blocks=blocks, edges=edges, least=1, most=most, ignored=ignored)
    scale = max(1.0, np.abs(total_effects(system.high)).max()) * np.abs(system.noise_map).max()
    assert abstraction_error(system) <= 1e-12 * scale * len(system.low)
    found = abstract_weights(system.low, system.tau, system.noise_map)
    np.testing.assert_allclose(found, system.high, atol=1e-12 * scale * len(system.low))
    block = np.array(system.block_of)
    for i in range(blocks):
        for j in range(blocks):
            if i != j:
                between = system.low[np.ix_(block == i, block == j)]
                given_s = between @ system.noise_map[block == j, j]
                wanted = system.high[i, j] * system.tau[block == i, i]
                np.testing.assert_allclose(given_s, wanted, atol=1e-11 * scale)


def test_the_abstraction_by_hand():
    """T = [[1,0],[0,1],[0,1]], W[1,2] = 0.5, row of x0 [0, u, v]: s_2 = (1.5, 1), m = 1.5u + v."""
    low = np.array([[0.0, 0.4, 0.2], [0.0, 0.0, 0.5], [0.0, 0.0, 0.0]])
    tau = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    noise_map = np.array([[1.0, 0.0], [0.0, 1.5], [0.0, 1.0]])
    high = abstract_weights(low, tau, noise_map)
    np.testing.assert_allclose(high, [[0.0, 0.8], [0.0, 0.0]], atol=1e-15)
    assert abstraction_error(System(low, high, tau, noise_map, (0, 1, 1))) < 1e-15
    prior = prior_from_abstract(high.T, tau)
    # Paths from x1 and x2 to x0 are forbidden: [to, from] = [0, 1] and [0, 2], nothing else.
    assert [tuple(place) for place in np.argwhere(prior == 0).tolist()] == [(0, 1), (0, 2)]


@pytest.mark.parametrize("style", list(Style))
def test_tau_is_exact_from_as_many_pairs_as_variables(style):
    system = made(3)
    size = len(system.low)
    rows = system.draw(size + 5, torch.Generator().manual_seed(1))
    found = fit_tau(rows, rows @ system.tau, style, 1e-2)
    np.testing.assert_allclose(found, system.tau, atol=1e-10)
    few = rows[: size - 1]
    with pytest.raises(BadInput, match=f"span {size - 1} of {size} dimensions"):
        fit_tau(few, few @ system.tau, style, 1e-2)


def test_styles_differ_where_a_variable_belongs_to_two():
    apart, both = np.eye(2), np.array([[1.0, 0.4], [0.0, 2.0]])
    np.testing.assert_allclose(fit_tau(apart, both, Style.PERFECT, 0.1), both, atol=1e-15)
    wanted = np.array([[1.0, 0.0], [0.0, 2.0]])
    np.testing.assert_allclose(fit_tau(apart, both, Style.NOISY, 0.1), wanted, atol=1e-15)
    low = np.linalg.cholesky(np.array([[1.0, 0.5], [0.5, 1.0]])).T
    found = fit_tau(low, low @ both, Style.NOISY_REFIT, 0.1)
    # x0 alone explains y0 = x0; x1 alone explains y1 = 0.4 x0 + 2 x1 with 2 + 0.4 * 0.5.
    np.testing.assert_allclose(found, [[1.0, 0.0], [0.0, 2.2]], atol=1e-12)


def test_full_chains_forbid_the_way_back_and_empty_graphs_all_between():
    tau = np.eye(3)
    full = np.tril(np.ones((3, 3)), -1)
    assert (prior_from_abstract(full, tau) == np.where(np.triu(np.ones((3, 3)), 1), 0, -1)).all()
    empty = prior_from_abstract(np.zeros((3, 3)), tau)
    assert (empty == np.where(np.eye(3), -1, 0)).all()
    path = np.zeros((3, 3))
    path[1, 0] = path[2, 1] = 1.0
    assert prior_from_abstract(path, tau)[2, 0] == -1


def test_the_estimator_finds_both_levels():
    system = made(5)
    generator = torch.Generator().manual_seed(2)
    rows, below = system.draw(3000, generator), system.draw(60, generator)
    found = AbsLingam().fit(rows, (below, below @ system.tau))
    np.testing.assert_allclose(found.tau_, system.tau, atol=1e-8)
    assert graph_scores(found.abstract_adjacency_, system.high.T)["f1"] == 1
    assert prior_scores(found.prior_knowledge_, system.low.T)["precision"] == 1
    alone = DirectLingam().fit(rows)
    ours, theirs = (
        graph_scores(model.adjacency_matrix_, system.low.T)["auc"] for model in (found, alone)
    )
    assert ours >= theirs - 0.02
    place = {variable: number for number, variable in enumerate(found.causal_order_)}
    forbidden = (found.prior_knowledge_ == 0) & (found.prior_knowledge_.T != 0)
    assert all(place[i] < place[j] for i, j in np.argwhere(forbidden))
    assert not found.adjacency_matrix_[found.prior_knowledge_ == 0].any()


def test_the_bootstrap_keeps_any_edge_it_saw():
    system = made(5)
    generator = torch.Generator().manual_seed(2)
    rows, below = system.draw(800, generator), system.draw(60, generator)
    paired = (below, below @ system.tau)
    once = AbsLingam().fit(rows, paired)
    often = AbsLingam(bootstrap=4).fit(rows, paired)
    assert (often.prior_knowledge_ == 0).sum() <= (once.prior_knowledge_ == 0).sum()
    again = AbsLingam(bootstrap=4).fit(rows, paired)
    assert (again.abstract_adjacency_ == often.abstract_adjacency_).all()


def test_settings_are_those_of_scikit_learn():
    model = AbsLingam(style="noisy", tau_threshold=0.1)
    assert model.get_params()["style"] == "noisy"
    assert model.set_params(bootstrap=3).get_params()["bootstrap"] == 3
    assert AbsLingam(**model.get_params()).settings == model.settings
    with pytest.raises(TypeError, match="no setting 'taus'"):
        AbsLingam(taus=1)
    with pytest.raises(ValueError, match="tau_threshold is -1"):
        AbsSettings(tau_threshold=-1)
    with pytest.raises(BadInput, match="expected as many of both"):
        AbsLingam().fit(np.eye(3)[[0, 1, 2, 0, 1]], (np.eye(3), np.eye(2)))
