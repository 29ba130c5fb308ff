"""The settings of preference tuning, and which of them go together."""

from __future__ import annotations

from dataclasses import dataclass, field

from wardround.client.tasks.base import TaskConfig
from wardround.client.tasks.preference.dealing import JudgedConfig
from wardround.client.tasks.preference.losses import LossSettings
from wardround.client.tasks.preference.methods import NEEDS_TWO, MethodSettings, find_method
from wardround.client.tasks.preference.on_policy import SamplingSettings, Scorer
from wardround.client.tasks.preference.reference import ReferenceSettings
from wardround.client.tasks.preference.rewards import Reward, RewardModel, RewardSettings
from wardround.privacy.tables import from_table


@dataclass(frozen=True)
class PreferenceConfig(JudgedConfig):
    """The ``[task]`` table.

    Attributes:
        method: A loss on pairs or a method on scored replies, by name.
        loss: Settings of the losses on pairs.
        replies: Settings of the methods on scored replies.
        sampling: Whether the model writes the replies it learns from.
        reward: What a reply is worth, to evaluate and to score written ones.
        reward_model: What scores written ones instead where ``sampling.reward`` says so.
        reference: What the tuned model is compared with.
    """

    method: str = "dpo"
    loss: LossSettings = field(default_factory=LossSettings)
    replies: MethodSettings = field(default_factory=MethodSettings)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    reward: RewardSettings = field(default_factory=RewardSettings)
    reward_model: RewardModel = field(default_factory=RewardModel)
    reference: ReferenceSettings = field(default_factory=ReferenceSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        find_method(self.method)
        if self.method == "exo" and not self.loss.label_smoothing:
            raise ValueError("method is 'exo', which needs loss.label_smoothing above 0")
        self._check_sampling()

    @property
    def scorer(self) -> Reward:
        """What says how good a written reply is."""
        own = self.sampling.reward is Scorer.OWN
        return self.reward if own else self.reward_model

    def _check_sampling(self) -> None:
        """Refuse settings of written replies that do not go together."""
        federated = self.sampling.reward is Scorer.FEDERATED
        if federated != self.reward_model.given:
            raise ValueError("sampling.reward = 'federated' and [task.reward_model] go together")
        if not self.sampling.share:
            return
        if not self.scorer.given:
            raise ValueError("sampling.share is above 0; written replies need a [task.reward]")
        if self.sampling.replies < 2 and self.method in NEEDS_TWO:
            raise ValueError(f"sampling.replies is 1; method {self.method!r} needs 2 or more")
        if self.reference.recorded:
            raise ValueError("reference.recorded is true; replies yet to be written have none")


def preference_config(config: TaskConfig) -> PreferenceConfig:
    """The ``[task]`` table, checked.

    Raises:
        BadInput: Naming the first field that cannot be used.
    """
    return from_table(PreferenceConfig, config, "[task]")
