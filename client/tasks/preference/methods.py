"""The methods on scored replies, and how pairs fit among them: one loss a prompt, whatever it is.

Every method reads the same table: one row a reply, with its log-likelihood under the model, under
the reference and under whoever wrote it, and its score. A group is one prompt with its replies;
nothing looks across groups, so baselines and maxima are a group's own. Source: Tajwar et al.
(2024), "Preference fine-tuning of LLMs should leverage suboptimal, on-policy data", section 3 and
table 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from wardround.client.tasks.preference.losses import (
    PAIR_LOSSES,
    WITHOUT_REFERENCE,
    Likelihoods,
    LossSettings,
    find_loss,
)


@dataclass(frozen=True)
class Scored:
    """Replies to several prompts; every tensor has shape ``(rows,)``.

    Attributes:
        likely: Log-likelihood under the model that trains.
        reference: The same under the reference; zeros where a method needs none.
        written: The same under whoever wrote the reply, when it was written.
        tokens: How many tokens the reply has.
        scores: How good it was found.
        group: Which prompt it answers, in ``[0, groups)``.
        role: 1 for its group's best reply, -1 for its worst, 0 for others; both in every group of
            two or more.
        groups: How many prompts there are.
    """

    likely: Tensor
    reference: Tensor
    written: Tensor
    tokens: Tensor
    scores: Tensor
    group: Tensor
    role: Tensor
    groups: int

    def per_group(self, rows: Tensor) -> Tensor:
        """Rows added up by group, shape ``(groups,)``."""
        return rows.new_zeros(self.groups).index_add(0, self.group, rows)

    def picked(self, rows: Tensor, role: int) -> Tensor:
        """The row of each group that has this role, shape ``(groups,)``."""
        return self.per_group(rows * (self.role == role))

    def sizes(self) -> Tensor:
        """Replies in each group, shape ``(groups,)``."""
        return self.per_group(torch.ones_like(self.likely))


@dataclass(frozen=True)
class MethodSettings:
    """What methods take besides a pair loss's own settings.

    Attributes:
        temperature: Of reward-weighted regression: a reply weighs exp(score / temperature).
        most_weight: What such a weight is cut to.
        least_score: Filtered behaviour cloning keeps replies that score at least this; a public
            number, because a quantile over a batch would couple groups.
        clip_ratio: PPO's epsilon.
        kl_weight: REINFORCE's and PPO's pull towards the reference, for each token's worth of
            log-likelihood.
    """

    temperature: float = 0.1
    most_weight: float = 20.0
    least_score: float = 1.0
    clip_ratio: float = 0.2
    kl_weight: float = 0.0

    def __post_init__(self) -> None:
        for name in ("temperature", "most_weight", "clip_ratio"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ValueError(f"{name} is {value}; it must be greater than 0")
        if not 0 <= self.kl_weight < float("inf"):
            raise ValueError(f"kl_weight is {self.kl_weight}; it must be 0 or more")


Method = Callable[[Scored, LossSettings, MethodSettings], Tensor]


def best_of_n(table: Scored, losses: LossSettings, settings: MethodSettings) -> Tensor:
    """Fine-tune on each prompt's best reply: mean loss over its tokens."""
    return table.picked(-table.likely / table.tokens, 1)


def filtered_cloning(table: Scored, losses: LossSettings, settings: MethodSettings) -> Tensor:
    """Fine-tune on every reply that is good enough."""
    kept = (table.scores >= settings.least_score).to(table.likely)
    return table.per_group(-kept * table.likely / table.tokens) / table.sizes()


def reward_weighted(table: Scored, losses: LossSettings, settings: MethodSettings) -> Tensor:
    """Reward-weighted regression (Peters and Schaal 2007): better replies weigh more."""
    weights = torch.exp(table.scores / settings.temperature).clamp(max=settings.most_weight)
    return table.per_group(-weights * table.likely / table.tokens) / table.sizes()


def good_and_bad(table: Scored, losses: LossSettings, settings: MethodSettings) -> Tensor:
    """Binary FeedMe: fine-tune on best and worst, each after the word that says which it is.

    The words are put before the prompt when rows are made (``SIGNS``).
    """
    mean = -table.likely / table.tokens
    return (table.picked(mean, 1) + table.picked(mean, -1)) / 2


def reinforce(table: Scored, losses: LossSettings, settings: MethodSettings) -> Tensor:
    """REINFORCE with the mean score of a prompt's other replies as its baseline."""
    advantage = _advantages(table)
    policy = table.per_group(-advantage * table.likely) / table.sizes()
    return policy + settings.kl_weight * _pull(table)


def clipped_ratio(table: Scored, losses: LossSettings, settings: MethodSettings) -> Tensor:
    """PPO's clipped objective, on whole replies (Schulman et al. 2017, equation 7)."""
    advantage = _advantages(table)
    ratio = torch.exp(table.likely - table.written)
    bounded = ratio.clamp(1 - settings.clip_ratio, 1 + settings.clip_ratio)
    surrogate = torch.maximum(-advantage * ratio, -advantage * bounded)
    return table.per_group(surrogate) / table.sizes() + settings.kl_weight * _pull(table)


def _advantages(table: Scored) -> Tensor:
    """Score minus the mean of the group's other scores; the score itself for a lone reply."""
    sizes = table.sizes()[table.group]
    others = table.per_group(table.scores)[table.group] - table.scores
    return table.scores - others / (sizes - 1).clamp(min=1)


def _pull(table: Scored) -> Tensor:
    """How far each group's replies have become likelier than under the reference, on average."""
    return table.per_group(table.likely - table.reference) / table.sizes()


def pair_method(name: str) -> Method:
    """A pair loss as a method: on each group's best and worst reply."""
    loss = find_loss(name)

    def method(table: Scored, losses: LossSettings, settings: MethodSettings) -> Tensor:
        pairs = Likelihoods(
            chosen=table.picked(table.likely, 1),
            rejected=table.picked(table.likely, -1),
            reference_chosen=table.picked(table.reference, 1),
            reference_rejected=table.picked(table.reference, -1),
            chosen_tokens=table.picked(table.tokens, 1),
            rejected_tokens=table.picked(table.tokens, -1).clamp(min=1),
        )
        return loss(pairs, losses)

    return method


_ON_REPLIES: Mapping[str, Method] = {
    "best-of-n": best_of_n,
    "filtered-cloning": filtered_cloning,
    "reward-weighted": reward_weighted,
    "feedme": good_and_bad,
    "reinforce": reinforce,
    "ppo": clipped_ratio,
}
METHODS = (*PAIR_LOSSES, *_ON_REPLIES)
SIGNS = {1: "Good.", -1: "Bad."}  # what FeedMe puts before the prompt
NEEDS_TWO = frozenset({*PAIR_LOSSES, "feedme"}) - {"pref-ft"}  # a best and a worst reply
NEEDS_BEST = frozenset({"pref-ft", "best-of-n"})  # only the best reply is looked at
NEEDS_REFERENCE = frozenset({*PAIR_LOSSES, "reinforce", "ppo"}) - WITHOUT_REFERENCE


def find_method(name: str) -> Method:
    """The method of this name; ``BadInput`` when there is none or it couples people."""
    return _ON_REPLIES[name] if name in _ON_REPLIES else pair_method(name)
