"""Maximal lotteries: the one way to choose that majority, clones and populations all respect.

A lottery p over candidates is maximal when no other lottery is preferred to it by an expected
majority: ``p @ margins >= 0`` for every candidate. Where several are, the one closest to uniform is
taken, because any other choice among them would favour someone. Sources: Kreweras (1965); Fishburn
(1984); Brandl, Brandt and Seedig (2016).
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linprog, minimize

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
    lottery: Floats = np.maximum(closest.x, 0.0)
    lottery /= lottery.sum()
    if (lottery @ duels).min() < -_SHORTFALL:
        raise ArithmeticError("no maximal lottery was found to the precision of float64")
    return lottery
