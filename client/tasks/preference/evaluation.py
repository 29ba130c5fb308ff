"""What tuning changed: which reply of a pair it favours, and what it now answers by itself.

Both the chosen and the rejected reply's gains are reported, because a model may learn a pair while
both become less likely (Tajwar et al. 2024, section 5.2.2). What the reference says is what the
model says with its adapter off.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wardround.client.lora import without_adapter
from wardround.client.tasks.preference.likelihood import log_likelihoods
from wardround.client.tasks.preference.records import Judged
from wardround.client.tasks.preference.rewards import RewardSettings, score_replies
from wardround.client.tasks.preference.sampling import sample_replies
from wardround.client.tasks.rows import encode, pad, pad_token_id


def evaluate_replies(
    model: nn.Module,
    tokenizer: Any,
    judged: Sequence[Judged],
    reward: RewardSettings,
    max_length: int,
    max_tokens: int,
    seed: int = 0,
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

    Returns:
        ``accuracy`` (pairs whose margin is above 0), ``margin``, ``chosen_gain`` and
        ``rejected_gain`` in nats; with a reward also ``reward`` and ``reference_reward`` of sampled
        replies, ``win_rate`` against the reference (ties count half) and ``kl`` from it in nats.
    """
    metrics: dict[str, float] = {}
    pairs = [one for one in judged if len(one.replies) > 1 and one.gap > 0]
    if pairs:
        chosen = _gains(
            model, tokenizer, [(p.prompt, p.replies[p.best]) for p in pairs], max_length
        )
        bad = _gains(model, tokenizer, [(p.prompt, p.replies[p.worst]) for p in pairs], max_length)
        margin = chosen - bad
        right = (margin > 0).double() + 0.5 * (margin == 0).double()
        metrics |= {
            "accuracy": float(right.mean()),
            "margin": float(margin.mean()),
            "chosen_gain": float(chosen.mean()),
            "rejected_gain": float(bad.mean()),
        }
    if reward.given:
        metrics |= _sampled(model, tokenizer, judged, reward, max_length, max_tokens, seed)
    return metrics


def _sampled(
    model: nn.Module,
    tokenizer: Any,
    judged: Sequence[Judged],
    reward: RewardSettings,
    max_length: int,
    max_tokens: int,
    seed: int,
) -> dict[str, float]:
    """The tuned model's replies against the reference's, on the same prompts."""
    prompts = [one.prompt for one in judged]
    ours = sample_replies(
        model, tokenizer, prompts, torch.Generator().manual_seed(seed), max_tokens
    )
    with without_adapter(model):
        generator = torch.Generator().manual_seed(seed)
        theirs = sample_replies(model, tokenizer, prompts, generator, max_tokens)
        ours_worth, theirs_worth = (
            torch.tensor(
                score_replies(reward, model, tokenizer, prompts, replies, max_length),
                dtype=torch.float64,
            )
            for replies in (ours, theirs)
        )
    gains = _gains(model, tokenizer, list(zip(prompts, ours, strict=True)), max_length)
    wins = (ours_worth > theirs_worth).double() + 0.5 * (ours_worth == theirs_worth).double()
    return {
        "reward": float(ours_worth.mean()),
        "reference_reward": float(theirs_worth.mean()),
        "win_rate": float(wins.mean()),
        "kl": float(gains.mean()),
    }


@torch.no_grad()
def _gains(
    model: nn.Module,
    tokenizer: Any,
    texts: Sequence[tuple[str, str]],
    max_length: int,
    rows_per_pass: int = 64,
) -> Tensor:
    """How much likelier each reply is than under the reference, in nats, shape ``(texts,)``."""
    device = next(model.parameters()).device
    found = []
    for start in range(0, len(texts), rows_per_pass):
        part = [
            encode(tokenizer, *text, max_length) for text in texts[start : start + rows_per_pass]
        ]
        inputs = {name: x.to(device) for name, x in pad(part, pad_token_id(tokenizer)).items()}
        tuned, _ = log_likelihoods(model, inputs)
        with without_adapter(model):
            reference, _ = log_likelihoods(model, inputs)
        found.append((tuned - reference).double().cpu())
    return torch.cat(found)
