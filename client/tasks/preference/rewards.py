"""What a reply is worth: a rule everybody can read, or a linear reward on a frozen base.

A linear reward's weights stand in the study file, or in a file that a federated study of the task
``reward`` has written and whose hash stands in the study file. All are public parts of the plan, so
using one costs no privacy; what it was learnt from must be public or have been charged elsewhere.
Knows nothing of training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from wardround.client.pinned import pinned_arrays, require_pin
from wardround.client.tasks.rows import IGNORED, encode, pad, pad_token_id
from wardround.privacy.errors import BadInput

WEIGHTS = "reward.weight"  # name of a learnt reward's numbers, one a dimension of the base's states


@dataclass(frozen=True)
class RewardSettings:
    """The ``[task.reward]`` table; empty for none.

    Attributes:
        phrases: Worth of each phrase a reply contains, whatever its case; counted once.
        per_word: Worth of each word.
        weights: Of a linear reward on the base's last hidden state, one a dimension.
    """

    phrases: Mapping[str, float] = field(default_factory=dict)
    per_word: float = 0.0
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        numbers = [*self.phrases.values(), self.per_word, *self.weights]
        if not all(map(math.isfinite, numbers)):
            raise ValueError("phrases, per_word and weights must be finite numbers")
        if self.weights and (self.phrases or self.per_word):
            raise ValueError("weights is given beside phrases or per_word; one kind of reward only")

    @property
    def given(self) -> bool:
        """Whether there is any reward."""
        return bool(self.phrases or self.per_word or self.weights)


@dataclass(frozen=True)
class RewardModel:
    """The ``[task.reward_model]`` table: a reward that hospitals learnt together, or none.

    Attributes:
        folder: What a study of the task ``reward`` has written.
        sha256: Of its ``adapter_model.safetensors``.
    """

    folder: str = ""
    sha256: str = ""

    def __post_init__(self) -> None:
        require_pin(self.folder, self.sha256, "reward_model")

    @property
    def given(self) -> bool:
        """Whether there is one."""
        return bool(self.folder)

    def weights(self) -> Tensor:
        """One number a dimension of the base's states; ``BadInput`` when they are not there."""
        arrays = pinned_arrays(self.folder, self.sha256)
        if arrays.keys() != {WEIGHTS}:
            raise BadInput(f"[task.reward_model] folder {self.folder}: holds no reward")
        return arrays[WEIGHTS].flatten()


Reward = RewardSettings | RewardModel


def rule_scores(settings: RewardSettings, replies: Sequence[str]) -> list[float]:
    """The rule's worth of each reply."""
    return [
        sum(worth for phrase, worth in settings.phrases.items() if phrase.lower() in reply.lower())
        + settings.per_word * len(reply.split())
        for reply in replies
    ]


@torch.no_grad()
def score_replies(
    settings: Reward,
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[str],
    replies: Sequence[str],
    max_length: int,
) -> list[float]:
    """Each reply's worth.

    Args:
        settings: The reward.
        model: The frozen base, without the adapter that trains; used by a linear reward only.
        tokenizer: Its tokenizer.
        prompts: One a reply.
        replies: What to score.
        max_length: Tokens of prompt and reply together.
    """
    if isinstance(settings, RewardSettings) and not settings.weights:
        return rule_scores(settings, replies)
    rows = [
        encode(tokenizer, prompt, reply, max_length)
        for prompt, reply in zip(prompts, replies, strict=True)
    ]
    device = next(model.parameters()).device
    inputs = {name: x.to(device) for name, x in pad(rows, pad_token_id(tokenizer)).items()}
    if isinstance(settings, RewardModel):
        states = mean_states(model, inputs)
        weights = settings.weights().to(states)
    else:
        states = last_states(model, inputs)
        weights = torch.tensor(settings.weights, dtype=states.dtype, device=device)
    if weights.shape != states.shape[1:]:
        raise ValueError(f"{len(weights)} reward weights for states of {states.shape[1]}")
    return [float(value) for value in states @ weights]


def last_states(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """The top layer's state at each row's last token, shape ``(rows, hidden)``."""
    states = _states(model, inputs)
    last = inputs["attention_mask"].sum(1) - 1
    return states[torch.arange(len(states), device=states.device), last]


def mean_states(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """The top layer's mean state over each row's own reply, shape ``(rows, hidden)``."""
    spoken = (inputs["labels"] != IGNORED).unsqueeze(2)
    states = _states(model, inputs) * spoken
    return states.sum(1) / spoken.sum(1).clamp(min=1)


def _states(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """The top layer's states, shape ``(rows, longest, hidden)``."""
    states: Tensor = model(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        use_cache=False,
        output_hidden_states=True,
    ).hidden_states[-1]
    return states
