"""A reward model as a task: what hospitals' clinicians prefer, as weights on a frozen base.

The loss of a prompt is Bradley and Terry's for its best and worst reply; both replies' gradients
are added up before the clip, as those of a pair are in ``preference``, whose files it reads. What
comes out serves studies of ``preference`` that have the model write its own replies. Sources:
Bradley and Terry (1952); Wu et al. (2023), "Privately aligning language models with reinforcement
learning", for training a reward under differential privacy before the policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from wardround.client.statistics import save_numbers
from wardround.client.tasks import rows
from wardround.client.tasks.base import Batch, Dealt, Metrics, Record, TaskConfig
from wardround.client.tasks.preference.dealing import JudgedConfig, deal_judged
from wardround.client.tasks.preference.formats import read_judged
from wardround.client.tasks.preference.records import Judged
from wardround.client.tasks.reward.head import attach_reward
from wardround.client.trainable import Trainable
from wardround.privacy import Unit
from wardround.privacy.errors import BadInput
from wardround.privacy.tables import from_table

ROWS_PER_PASS = 64


class RewardTask:
    """Judged replies, and a linear reward learning to tell the better from the worse."""

    name: ClassVar[str] = "reward"
    summary: ClassVar[str] = "Learn a reward model from the replies clinicians prefer"
    units: ClassVar[tuple[Unit, ...]] = (Unit.RECORD, Unit.CLINICIAN, Unit.PATIENT)
    records_add_up: ClassVar[bool] = True

    def check(self, config: TaskConfig) -> None:
        """Raise ``BadInput`` naming the first field of ``[task]`` that cannot be used."""
        _settings(config)

    def load(self, source: Path, config: TaskConfig) -> Sequence[Record]:
        """The preferences of a file, each of two replies or more; ``BadInput`` names the line."""
        records = read_judged(source)
        lone = next((n for n, r in enumerate(records, 1) if len(r.content.replies) < 2), None)
        if lone is not None:
            raise BadInput(f"{source}: record {lone} has one reply; a comparison needs two")
        return records

    def deal(
        self, source: Path | None, folder: Path, hospitals: int, seed: int, config: TaskConfig
    ) -> Dealt:
        """The files a study of ``preference`` would be dealt from the same source and seed."""
        return deal_judged(source, folder, hospitals, seed, _settings(config))

    def adapt(
        self,
        model: nn.Module,
        tokenizer: Any,
        adapter: Mapping[str, Any],
        config: TaskConfig,
        generator: torch.Generator,
    ) -> Trainable:
        """The weights, zero at first; ``[adapter]`` has nothing to say about them."""
        return attach_reward(model)

    def collate(
        self, units: Sequence[Sequence[Record]], tokenizer: Any, config: TaskConfig
    ) -> Batch:
        """Two rows a prompt, its best reply and its worst, side by side."""
        settings = _settings(config)
        found: list[rows.Row] = []
        owners: list[int] = []
        kept: list[bool] = []
        for number, records in enumerate(units):
            for record in records:
                judged: Judged = record.content
                for place in (judged.best, judged.worst):
                    reply = judged.replies[place]
                    found.append(rows.encode(tokenizer, judged.prompt, reply, settings.max_length))
                    owners.append(number)
                    kept.append(judged.gap > 0 and judged.gap >= settings.least_gap)
        inputs = rows.pad(found, rows.pad_token_id(tokenizer))
        inputs["kept"] = torch.tensor(kept, dtype=torch.bool)
        return Batch(inputs, torch.tensor(owners, dtype=torch.long), len(units))

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """A unit's loss is the sum of its prompts': how unlikely the judgement is."""
        device = next(model.parameters()).device
        inputs = {name: value.to(device) for name, value in batch.inputs.items()}
        rewards: Tensor = model(inputs)
        found = -logsigmoid(rewards[0::2] - rewards[1::2]) * inputs["kept"][0::2]
        unit = batch.unit_of_row.to(device)[0::2]
        return rewards.new_zeros(batch.units).index_add(0, unit, found)

    def evaluate(
        self, model: nn.Module, tokenizer: Any, records: Sequence[Record], config: TaskConfig
    ) -> Metrics:
        """Returns ``accuracy``, pairs told apart rightly, ties by half; and the mean ``loss``.

        Privacy: exact figures about ``records``; they stay where the records are.
        """
        settings = _settings(config)
        apart = [r for r in records if r.content.gap > 0 and r.content.gap >= settings.least_gap]
        margins = [torch.zeros(0)]
        with torch.no_grad():
            for start in range(0, len(apart), ROWS_PER_PASS):
                part = [[record] for record in apart[start : start + ROWS_PER_PASS]]
                rewards = model(self.collate(part, tokenizer, config).inputs)
                margins.append((rewards[0::2] - rewards[1::2]).float().cpu())
        margin = torch.cat(margins)
        if not len(margin):
            return {}
        right = (margin > 0).double() + 0.5 * (margin == 0).double()
        return {"accuracy": float(right.mean()), "loss": float(-logsigmoid(margin).mean())}

    def export(
        self,
        trainable: Trainable,
        adapter: Mapping[str, Any],
        arrays: Mapping[str, Tensor],
        base: str,
        folder: Path,
        note: str,
    ) -> None:
        """Write the weights; ``[task.reward_model]`` of a ``preference`` study names the folder."""
        save_numbers(arrays, folder, f"Reward on the states of {base}", note)


def _settings(config: TaskConfig) -> JudgedConfig:
    """The ``[task]`` table, checked."""
    return from_table(JudgedConfig, config, "[task]")
