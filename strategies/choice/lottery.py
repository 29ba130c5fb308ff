"""Maximal lotteries: the one way to choose that majority, clones and populations all respect.

A lottery p over candidates is maximal when no other lottery is preferred to it by an expected
majority: ``p @ margins >= 0`` for every candidate. Where several are, the one closest to uniform is
taken, because any other choice among them would favour someone. Sources: Kreweras (1965); Fishburn
(1984); Brandl, Brandt and Seedig (2016).
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linprog, minimize, nnls

from wardround.strategies.choice.ballots import Floats
from wardround.strategies.choice.pairwise import margins

_SHORTFALL = 1e-9  # of the largest margin: what rounding may cost the lottery in one duel


def maximal_lottery(wins: Floats) -> Floats:
    """A probability for each candidate, shape ``(candidates,)``; accurate to about 1e-8.

    Raises:
        ArithmeticError: Rounding left a lottery that some candidate beats.
    """
    margin = margins(wins)
    scale = float(np.abs(margin).max())
    count = len(margin)
    if scale == 0.0:
        return np.full(count, 1 / count)
    duels = margin / scale
    lottery = _nearest(duels)
    if lottery is None:
        lottery = _searched(duels)
    lottery = np.maximum(lottery, 0.0)
    lottery /= lottery.sum()
    if (lottery @ duels).min() < -_SHORTFALL:
        raise ArithmeticError("no maximal lottery was found to the precision of float64")
    return lottery


def _nearest(duels: Floats) -> Floats | None:
    """The lottery of least norm by least-distance programming; None where rounding spoils it.

    Lawson and Hanson (1974), chapter 23: least squares under non-negativity solve the dual. What it
    finds is taken only if it is optimal by the conditions of Karush, Kuhn and Tucker: ties between
    many lotteries can stop it early.
    """
    count = len(duels)
    sides = np.concatenate([duels.T, np.eye(count), np.ones((1, count)), -np.ones((1, count))])
    bounds = np.concatenate([np.zeros(2 * count), [1.0, -1.0]])
    target = np.append(np.zeros(count), 1.0)
    try:
        dual, _ = nnls(np.concatenate([sides.T, bounds[None]]), target, maxiter=50 * count)
    except RuntimeError:
        return None  # it went on for too long
    residual = np.append(sides.T @ dual, bounds @ dual) - target
    if residual[-1] > -_SHORTFALL:
        return None
    lottery: Floats = residual[:-1] / -residual[-1]
    room = sides @ lottery - bounds
    tight = abs(float(dual @ room) / residual[-1]) <= _SHORTFALL
    return lottery if room.min() >= -_SHORTFALL and tight else None


def _searched(duels: Floats) -> Floats:
    """The lottery of least norm by sequential quadratic programming, from any maximal lottery."""
    count = len(duels)
    some = linprog(
        np.zeros(count), A_ub=-duels.T, b_ub=np.zeros(count), A_eq=np.ones((1, count)), b_eq=[1.0]
    )
    closest = minimize(
        lambda p: p @ p,
        some.x,
        jac=lambda p: 2 * p,
        bounds=[(0, 1)] * count,
        constraints=[
            {"type": "ineq", "fun": lambda p: p @ duels, "jac": lambda p: duels.T},
            {"type": "eq", "fun": lambda p: p.sum() - 1, "jac": lambda p: np.ones(count)},
        ],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    found: Floats = closest.x
    return found
