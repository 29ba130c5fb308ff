"""Membership inference by likelihood ratio (LiRA): was this record in the training set?

Shadow models are trained on random halves of the same records. For each record two normal
distributions are fitted to the confidence log(p / (1 - p)) of the models that saw it and of those
that did not; an attacked model's score for the record is the logarithm of their ratio. Source:
Carlini et al. (2022), "Membership inference attacks from first principles", algorithm 1. Every
record here has a random label, so it can only be learnt by heart: the attack's best case.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from wardround.privacy.limits import most_area, most_true_positives
from wardround.privacy.shadows import Examples, Mechanism, Training, train_heads


@dataclass(frozen=True)
class MembershipSetup:
    """The crowd.

    Attributes:
        records: Each is in half of the training sets.
        shadows: Models the attacker trains; the attack is fitted on them.
        targets: Models that are attacked; never used for fitting.
        width: Length of a feature vector.
        classes: How many labels there are.
        false_positives: Rate at which the true-positive rate is read off.
        training: How all of them train.
    """

    records: int = 40
    shadows: int = 48
    targets: int = 48
    width: int = 32
    classes: int = 10
    false_positives: float = 0.01
    training: Training = field(default_factory=Training)

    def __post_init__(self) -> None:
        # Two models on either side for a variance, and two targets for a standard error.
        for name, least in (("records", 2), ("shadows", 4), ("targets", 4), ("classes", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {least} or more")
        for name in ("shadows", "targets"):
            if getattr(self, name) % 2:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be even")


@dataclass(frozen=True)
class MembershipResult:
    """What the attack reached, and the most it could have.

    Attributes:
        setup: The crowd.
        mechanism: What stood between records and model.
        area: Area under the curve, 0.5 for guessing; targets are compared with other targets only.
        area_error: Its standard error, by leaving out one target at a time.
        area_limit: The most any attack could reach on average.
        true_positives: At the setup's false-positive rate.
        true_positives_error: Its standard error, likewise.
        true_positives_limit: The most any attack could reach on average.
    """

    setup: MembershipSetup
    mechanism: Mechanism
    area: float
    area_error: float
    area_limit: float
    true_positives: float
    true_positives_error: float
    true_positives_limit: float


def attack_membership(
    setup: MembershipSetup, mechanism: Mechanism, generator: torch.Generator
) -> MembershipResult:
    """Train the crowd on made-up records, attack half of it.

    Both limits hold for the average over records, because a target's score for a record it saw is
    only ever compared with the score of another, independent target.
    """
    models = setup.shadows + setup.targets
    members = torch.cat(
        [_halves(count, setup.records, generator) for count in (setup.shadows, setup.targets)]
    )
    features = torch.randn((1, setup.records, 1, setup.width), generator=generator)
    features = features / math.sqrt(setup.width)
    labels = torch.randint(setup.classes, (1, setup.records, 1), generator=generator)
    examples = Examples(features, labels, members.float(), setup.classes, setup.records)
    heads = train_heads(examples, setup.training, mechanism, generator)
    every = labels.expand(models, -1, -1).unsqueeze(-1)
    logarithm = heads.log_probabilities(features).gather(-1, every)[..., 0, 0].double()
    confidence = logarithm - torch.log1p(-logarithm.exp().clamp(max=1 - 1e-12))
    scores = likelihood_ratios(
        confidence[: setup.shadows], members[: setup.shadows], confidence[setup.shadows :]
    )
    seen = members[setup.shadows :]
    area, area_error = _with_error(scores, seen, _mean_area)
    rate, rate_error = _with_error(
        scores, seen, lambda s, m: _true_positives(s, m, setup.false_positives)
    )
    mu = mechanism.mu(setup.training.steps)
    return MembershipResult(
        setup=setup,
        mechanism=mechanism,
        area=area,
        area_error=area_error,
        area_limit=most_area(mu),
        true_positives=rate,
        true_positives_error=rate_error,
        true_positives_limit=most_true_positives(setup.false_positives, mu),
    )


def likelihood_ratios(shadows: Tensor, members: Tensor, targets: Tensor) -> Tensor:
    """Log-likelihood ratio that each target saw each record.

    Args:
        shadows: Confidences of the shadow models, shape ``(shadows, records)``.
        members: Which shadow saw which record, the same shape.
        targets: Confidences of the attacked models, shape ``(targets, records)``.

    Returns:
        Shape ``(targets, records)``; positive where "saw it" is the likelier.
    """
    ratio = torch.zeros_like(targets)
    for side, sign in ((members, 1.0), (~members, -1.0)):
        count = side.sum(0)
        mean = (shadows * side).sum(0) / count
        variance = ((shadows - mean).square() * side).sum(0) / (count - 1)
        variance = variance.clamp(min=1e-12)
        ratio += sign * -0.5 * ((targets - mean).square() / variance + variance.log())
    return ratio


def _halves(models: int, records: int, generator: torch.Generator) -> Tensor:
    """For each record a random half of the models, shape ``(models, records)``."""
    order = torch.rand((models, records), generator=generator).argsort(0)
    return order < models // 2


def _mean_area(scores: Tensor, seen: Tensor) -> float:
    """The area under the curve of each record over targets, averaged over records."""
    ahead = (scores.unsqueeze(1) - scores.unsqueeze(0)).sign() / 2 + 0.5
    pairs = seen.unsqueeze(1) & ~seen.unsqueeze(0)
    return float(((ahead * pairs).sum((0, 1)) / pairs.sum((0, 1))).mean())


def _true_positives(scores: Tensor, seen: Tensor, false_positives: float) -> float:
    """Share of seen records scored above all but this share of unseen ones, over all targets."""
    threshold = scores[~seen].quantile(1 - false_positives, interpolation="higher")
    return float((scores[seen] > threshold).double().mean())


def _with_error(
    scores: Tensor, seen: Tensor, figure: Callable[[Tensor, Tensor], float]
) -> tuple[float, float]:
    """A figure and its standard error by the jackknife over targets, which are independent."""
    targets = len(scores)
    kept = ~torch.eye(targets, dtype=torch.bool)
    left_out = torch.tensor([figure(scores[keep], seen[keep]) for keep in kept])
    spread = (left_out - left_out.mean()).square().sum()
    return figure(scores, seen), math.sqrt(float(spread) * (targets - 1) / targets)
