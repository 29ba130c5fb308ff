"""A bandit small enough to see every probability: what preference methods do to a distribution.

A policy is 100 logits over 100 actions and starts at a reference that puts most of its mass at one
end. Reward R1 peaks where the reference hardly goes, R2 where it goes already. Methods are the ones
of the preference task itself; an action is a reply of one token, a prompt is another draw from the
same policy. Knows nothing of files or figures. Source: Tajwar et al. (2024), "Preference
fine-tuning of LLMs should leverage suboptimal, on-policy data", sections 4 and 5, whose policy is a
small network where this one is a table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from wardround.client.tasks.preference.losses import (
    PAIR_LOSSES,
    Likelihoods,
    LossSettings,
    find_loss,
)
from wardround.client.tasks.preference.methods import MethodSettings, Scored, find_method

ACTIONS = 100
PEAKS: Mapping[str, int] = {"R1": 70, "R2": 20}
_WIDTH = 10.0


def reference_policy(generator: torch.Generator, draws: int = 10_000) -> Tensor:
    """The reference: a histogram of tanh of Cauchy draws around -0.7, one added to every bin.

    Returns:
        Probabilities, shape ``(100,)``, float64.
    """
    sampled = torch.empty(draws, dtype=torch.float64).cauchy_(-0.7, 0.4, generator=generator)
    counts = torch.histc(sampled.tanh(), bins=ACTIONS, min=-1.0, max=1.0) + 1
    return counts / counts.sum()


def reward_of(name: str) -> Tensor:
    """Each action's reward in [0, 1], shape ``(100,)``: a bump around the peak of this name."""
    places = torch.arange(ACTIONS, dtype=torch.float64)
    return torch.exp(-(((places - PEAKS[name]) / _WIDTH) ** 2))


@dataclass(frozen=True)
class Recipe:
    """One way to learn.

    Attributes:
        method: As the preference task names it; losses on pairs see all pairs of a prompt.
        steps: Of Adam.
        prompts: Drawn at once; more of them make older samples of the same number of replies.
        replies: To each prompt.
        reuse: Steps on one batch before the policy is asked again; 0 is offline: the first batch,
            which the reference wrote, for all steps.
        learning_rate: Of Adam.
        least_gap: Pairs whose rewards differ by this or less are left out, ties always.
        loss: Settings of the losses on pairs.
        weights: Settings of the methods on scored replies.
    """

    method: str
    steps: int = 300
    prompts: int = 10
    replies: int = 10
    reuse: int = 0
    learning_rate: float = 0.05
    least_gap: float = 0.0
    loss: LossSettings = field(default_factory=LossSettings)
    weights: MethodSettings = field(default_factory=MethodSettings)

    def __post_init__(self) -> None:
        find_method(self.method)
        for name in ("steps", "prompts", "replies"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        for name in ("reuse", "least_gap"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more")


@dataclass(frozen=True)
class Course:
    """What learning came to.

    Attributes:
        rewards: Expected reward before the first and after every step, shape ``(steps + 1,)``.
        policy: Probabilities at the end, shape ``(100,)``.
        queries: How many replies were scored.
    """

    rewards: Tensor
    policy: Tensor
    queries: int

    @property
    def final(self) -> float:
        """Expected reward at the end."""
        return float(self.rewards[-1])


def learn(reference: Tensor, reward: Tensor, recipe: Recipe, generator: torch.Generator) -> Course:
    """Learn from sampled replies, from the reference on.

    Args:
        reference: Probabilities of the reference, shape ``(100,)``.
        reward: Of each action, shape ``(100,)``.
        recipe: How.
        generator: Draws the replies.
    """
    logits = reference.log().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=recipe.learning_rate)
    rewards, queries = [], 0
    objective: Callable[[Tensor], Tensor] | None = None
    for step in range(recipe.steps):
        policy = logits.detach().softmax(0)
        rewards.append(policy @ reward)
        if objective is None or (recipe.reuse and step % recipe.reuse == 0):
            drawn = torch.multinomial(
                policy, recipe.prompts * recipe.replies, replacement=True, generator=generator
            ).view(recipe.prompts, recipe.replies)
            objective = _objective(recipe, reference.log(), policy.log(), reward, drawn)
            queries += drawn.numel()
        optimizer.zero_grad()
        objective(logits.log_softmax(0)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    policy = logits.detach().softmax(0)
    return Course(torch.stack([*rewards, policy @ reward]), policy, queries)


def _objective(
    recipe: Recipe, reference: Tensor, written: Tensor, reward: Tensor, drawn: Tensor
) -> Callable[[Tensor], Tensor]:
    """The loss on one batch as a function of the policy's log-probabilities."""
    if recipe.method in PAIR_LOSSES:
        return _pair_objective(recipe, reference, reward, drawn)
    method, actions = find_method(recipe.method), drawn.flatten()
    scores = reward[drawn]
    role = torch.zeros_like(drawn)
    role.scatter_(1, scores.argmin(1, keepdim=True), -1)
    role.scatter_(1, scores.argmax(1, keepdim=True), 1)
    group = torch.arange(recipe.prompts).repeat_interleave(recipe.replies)

    def loss(log_policy: Tensor) -> Tensor:
        table = Scored(
            likely=log_policy[actions],
            reference=reference[actions],
            written=written[actions],
            tokens=torch.ones_like(actions),
            scores=scores.flatten(),
            group=group,
            role=role.flatten(),
            groups=recipe.prompts,
        )
        return method(table, recipe.loss, recipe.weights).mean()

    return loss


def _pair_objective(
    recipe: Recipe, reference: Tensor, reward: Tensor, drawn: Tensor
) -> Callable[[Tensor], Tensor]:
    """The mean loss over all pairs of one prompt's replies that lie far enough apart."""
    better, worse = ordered_pairs(reward, drawn, recipe.least_gap)
    pair_loss = find_loss(recipe.method)
    ones = torch.ones_like(better)

    def loss(log_policy: Tensor) -> Tensor:
        if not len(better):
            return log_policy.sum() * 0  # nothing to learn from: stay where it is
        pairs = Likelihoods(
            log_policy[better], log_policy[worse], reference[better], reference[worse], ones, ones
        )
        return pair_loss(pairs, recipe.loss).mean()

    return loss


def ordered_pairs(reward: Tensor, drawn: Tensor, least_gap: float) -> tuple[Tensor, Tensor]:
    """Better and worse action of all pairs of a row whose rewards differ by more than the gap.

    Args:
        reward: Of each action.
        drawn: Actions, shape ``(prompts, replies)``.
        least_gap: 0 leaves out ties only.

    Returns:
        Two tensors of actions of the same shape ``(pairs,)``.
    """
    first, second = torch.triu_indices(drawn.shape[1], drawn.shape[1], offset=1)
    left, right = drawn[:, first].flatten(), drawn[:, second].flatten()
    gap = reward[left] - reward[right]
    kept = gap.abs() > least_gap
    better = torch.where(gap > 0, left, right)[kept]
    worse = torch.where(gap > 0, right, left)[kept]
    return better, worse


def optimal_policy(reference: Tensor, reward: Tensor, beta: float) -> Tensor:
    """The policy of most reward less ``beta`` times its divergence from the reference."""
    return (reference.log() + reward / beta).softmax(0)


def follow_divergence(
    reference: Tensor,
    target: Tensor,
    reward: Tensor,
    reverse: bool,
    steps: int,
    learning_rate: float = 1.0,
) -> Tensor:
    """Plain descent on the divergence to a target, with exact gradients.

    Forward is KL(target || policy), which supervised methods descend; reverse is
    KL(policy || target), which policy gradients and contrastive losses descend (lemma 6.1).

    Args:
        reference: Where the policy starts.
        target: Where it should go.
        reward: Of each action.
        reverse: Which divergence.
        steps: How many.
        learning_rate: Of the descent.

    Returns:
        Expected reward before the first and after every step, shape ``(steps + 1,)``.
    """
    logits, goal = reference.log(), target.log()
    rewards = []
    for _ in range(steps):
        policy = logits.softmax(0)
        rewards.append(policy @ reward)
        gradient = policy - target
        if reverse:
            ratio = logits.log_softmax(0) - goal
            gradient = policy * (ratio - policy @ ratio)
        logits = logits - learning_rate * gradient
    return torch.stack([*rewards, logits.softmax(0) @ reward])
