"""A linear reward on a frozen base: all that trains is one number a dimension of its states.

So few numbers need little noise, and the base is only read. The reward of a reply is the product of
the weights with the top layer's mean state over the reply. Source: Ouyang et al. (2022), "Training
language models to follow instructions with human feedback", section 3.5: a model whose last layer
gives one number, here with everything below that layer frozen.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from wardround.client.tasks.preference.rewards import WEIGHTS, mean_states
from wardround.client.trainable import Trainable
from wardround.privacy.errors import BadInput


class LinearReward(nn.Module):
    """A frozen base and one weight a dimension of its states, all zero at first."""

    def __init__(self, base: nn.Module, size: int) -> None:
        super().__init__()
        self.base = base
        self.worth = nn.Linear(size, 1, bias=False)
        nn.init.zeros_(self.worth.weight)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Each row's reward, shape ``(rows,)``; a row's value depends on that row alone."""
        with torch.no_grad():
            states = mean_states(self.base, inputs)
        rewards: Tensor = self.worth(states.to(self.worth.weight)).squeeze(1)
        return rewards


def attach_reward(base: nn.Module) -> Trainable:
    """The trainable weights on this base.

    Raises:
        BadInput: The base is none that has states.
    """
    size = getattr(getattr(base, "config", None), "hidden_size", None)
    if not isinstance(size, int):
        raise BadInput("[model] base has no states to read; a reward needs a language model")
    some = next(base.parameters())
    # The library's own first values come from the global generator; the fork leaves that as it was.
    with torch.random.fork_rng(devices=[]):
        reward = LinearReward(base, size)
    kind = torch.promote_types(some.dtype, torch.float32)
    reward.worth.to(device=some.device, dtype=kind)
    (weights,) = reward.worth.parameters()
    return Trainable(reward.eval(), {WEIGHTS: weights}, detach=lambda: base)
