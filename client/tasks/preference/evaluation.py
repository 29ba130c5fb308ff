"""What tuning changed: which reply of a pair it favours, and what it now answers by itself.

Both the chosen and the rejected reply's gains are reported, because a model may learn a pair while
both become less likely (Tajwar et al. 2024, section 5.2.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wardround.client.lora import without_adapter
from wardround.client.tasks.preference.likelihood import likelihoods_of
from wardround.client.tasks.preference.records import Judged
from wardround.client.tasks.preference.reference import ReferenceSettings, as_reference
from wardround.client.tasks.preference.rewards import RewardSettings, score_replies
from wardround.client.tasks.sampling import sample_replies

BASE = ReferenceSettings()


def evaluate_replies(
    model: nn.Module,
    tokenizer: Any,
    judged: Sequence[Judged],
    reward: RewardSettings,
    max_length: int,
    max_tokens: int,
    seed: int = 0,
    reference: ReferenceSettings = BASE,
) -> dict[str, float]:
    """Scores on prompts that may be looked at.

    Args:
        model: The tuned model.
        tokenizer: Its tokenizer.
        judged: Prompts and replies.
        reward: What a reply is worth; without it nothing is sampled.
        max_length: Tokens of prompt and reply together.
        max_tokens: A sampled reply's longest length.
        seed: Public; the same seed samples with the same randomness before and after.
        reference: What the tuned model is compared with.

    Returns:
        ``accuracy`` (pairs whose margin is above 0), ``margin``, ``chosen_gain`` and
        ``rejected_gain`` in nats; with a reward also ``reward`` and ``reference_reward`` of sampled
        replies, ``win_rate`` against the reference (ties count half) and ``kl`` from it in nats.
    """
    metrics: dict[str, float] = {}
    pairs = [one for one in judged if len(one.replies) > 1 and one.gap > 0]
    if pairs:
        good = [(pair.prompt, pair.replies[pair.best]) for pair in pairs]
        poor = [(pair.prompt, pair.replies[pair.worst]) for pair in pairs]
        chosen = _gains(model, tokenizer, good, max_length, reference)
        bad = _gains(model, tokenizer, poor, max_length, reference)
        margin = chosen - bad
        right = (margin > 0).double() + 0.5 * (margin == 0).double()
        metrics |= {
            "accuracy": float(right.mean()),
            "margin": float(margin.mean()),
            "chosen_gain": float(chosen.mean()),
            "rejected_gain": float(bad.mean()),
        }
    if reward.given:
        metrics |= _sampled(
            model, tokenizer, judged, reward, max_length, max_tokens, seed, reference
        )
    return metrics


def _sampled(
    model: nn.Module,
    tokenizer: Any,
    judged: Sequence[Judged],
    reward: RewardSettings,
    max_length: int,
    max_tokens: int,
    seed: int,
    reference: ReferenceSettings,
) -> dict[str, float]:
    """The tuned model's replies against the reference's, on the same prompts."""
    prompts = [one.prompt for one in judged]
    ours = sample_replies(
        model, tokenizer, prompts, torch.Generator().manual_seed(seed), max_tokens
    )
    with as_reference(model, reference):
        generator = torch.Generator().manual_seed(seed)
        theirs = sample_replies(model, tokenizer, prompts, generator, max_tokens)
    with without_adapter(model):
        ours_worth, theirs_worth = (
            torch.tensor(
                score_replies(reward, model, tokenizer, prompts, replies, max_length),
                dtype=torch.float64,
            )
            for replies in (ours, theirs)
        )
    spoken = list(zip(prompts, ours, strict=True))
    gains = _gains(model, tokenizer, spoken, max_length, reference)
    wins = (ours_worth > theirs_worth).double() + 0.5 * (ours_worth == theirs_worth).double()
    return {
        "reward": float(ours_worth.mean()),
        "reference_reward": float(theirs_worth.mean()),
        "win_rate": float(wins.mean()),
        "kl": float(gains.mean()),
    }


def _gains(
    model: nn.Module,
    tokenizer: Any,
    texts: Sequence[tuple[str, str]],
    max_length: int,
    reference: ReferenceSettings,
) -> Tensor:
    """How much likelier each reply is than under the reference, in nats, shape ``(texts,)``."""
    tuned = likelihoods_of(model, tokenizer, texts, max_length)
    with as_reference(model, reference):
        return tuned - likelihoods_of(model, tokenizer, texts, max_length)
