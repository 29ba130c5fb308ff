"""Canaries: which units to plant, and how to tell from noised sums which of them took part.

Whoever audits knows every gradient that could have entered a sum, and asks which did. Canaries
whose gradients are short, or mixtures of others', show little even without any privacy, so the
most distinct candidates are planted. Linear algebra only: knows nothing of models or coins.
Sources: Nasr et al. (2023), "Tight auditing of differentially private machine learning", section 4
(white-box score); Tuechler, Singer and Koetter (2002), "Minimum mean squared error equalization
using a priori information", section III (one's own prior taken out of a linear estimate); Higham
(1990), "Analysis of the Cholesky decomposition", section 1 (complete pivoting).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SMALLEST = 1e-7  # float32 gradients say nothing below this share of their squared length


def most_distinct(gradients: Tensor, count: int) -> list[int]:
    """Positions of units whose gradients are long and span the most, best first.

    Each next one is the unit with the longest part that the ones before do not explain.

    Args:
        gradients: Shape ``(units, parameters)``.
        count: How many are wanted.

    Returns:
        ``count`` positions, or fewer when the other gradients are mixtures of these.
    """
    products = (gradients @ gradients.T).double()
    left = products.diagonal().clone()
    enough = _SMALLEST * float(left.max()) if len(left) else 0.0
    columns = torch.zeros(len(left), count, dtype=torch.float64)
    chosen: list[int] = []
    while len(chosen) < min(count, len(left)):
        best = int(left.argmax())
        if float(left[best]) <= enough:
            break
        done = len(chosen)
        explained = columns[:, :done] @ columns[best, :done]
        columns[:, done] = (products[:, best] - explained) / left[best].sqrt()
        left = (left - columns[:, done].square()).clamp(min=0.0)
        left[best] = 0.0
        chosen.append(best)
    return chosen


def evidence(total: Tensor, gradients: Tensor, canaries: int, rate: float, noise: float) -> Tensor:
    """Log-likelihood ratio of "it was there" to "it was not", for each canary.

    What one canary added is estimated with all others taken for normal numbers of the right mean
    and variance; then the ratio is exact: a canary that is there is sampled at ``rate``, one that
    is not adds nothing. Sums over steps are scores.

    Args:
        total: The noised sum of one step, shape ``(parameters,)``.
        gradients: What each unit would have added, shape ``(units, parameters)``: the canaries,
            each there by a fair coin, then units that are there for certain.
        canaries: How many of the units are canaries.
        rate: At which units that are there are sampled.
        noise: Deviation on each coordinate.

    Returns:
        Shape ``(canaries,)``, float64.
    """
    prior = torch.full((len(gradients),), rate, dtype=torch.float64)
    prior[:canaries] /= 2
    prior = prior.clamp(max=1 - _SMALLEST)
    spread = prior * (1 - prior)
    lengths = gradients.norm(dim=1)
    noise = max(noise, _SMALLEST**0.5 * float(lengths.max()))
    products = (gradients @ gradients.T).double() / noise**2
    along = (gradients @ total).double() / noise**2
    # Everybody's estimate given the sum, by the normal equations with the prior in them.
    uncertain = torch.linalg.inv(products + torch.diag(1 / spread))
    mean = uncertain @ (along + prior / spread)
    # Taken without its own prior, the estimate of one canary is its part plus normal noise.
    own = uncertain.diagonal()[:canaries]
    information = (1 / own - 1 / spread[:canaries]).clamp(min=0.0)
    weighted = mean[:canaries] / own - prior[:canaries] / spread[:canaries]
    present = weighted - information / 2
    absent = torch.full_like(present, math.log1p(-rate) if rate < 1 else -math.inf)
    return torch.logaddexp(absent, math.log(rate) + present)


def seen_deviation(total: Tensor, gradients: Tensor) -> float:
    """The noise's deviation on each coordinate, from what no mixture of gradients explains.

    A guesser believes its eyes: whoever is told of noise that is not there must not be misled.

    Args:
        total: The noised sum, shape ``(parameters,)``.
        gradients: What each unit would have added, ``(units, parameters)``; fewer units than
            parameters.
    """
    units, parameters = gradients.shape
    if units >= parameters:
        raise ValueError(f"{units} units explain any sum of {parameters} parameters")
    lengths, mixtures = torch.linalg.eigh((gradients @ gradients.T).double())
    known = lengths > _SMALLEST * lengths.max()
    along = (mixtures.T @ (gradients @ total).double())[known]
    explained = float((along.square() / lengths[known]).sum())
    left = max(0.0, float(total.double().square().sum()) - explained)
    return math.sqrt(left / (parameters - int(known.sum())))
