"""Preference tuning as a task: judged replies in, one loss a privacy unit out.

A pair, or a prompt with all its replies, is one record; a clinician or a patient is a unit with all
of theirs, added up before the clip. Knows nothing of noise, ledgers or the network. Source: Tajwar
et al. (2024), "Preference fine-tuning of LLMs should leverage suboptimal, on-policy data".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from wardround.client.lora import AdapterConfig, attach_lora, save_adapter, without_adapter
from wardround.client.tasks import rows
from wardround.client.tasks.base import Batch, Dealt, Metrics, Record, TaskConfig
from wardround.client.tasks.draws import Draws
from wardround.client.tasks.preference.advice import AdviceShape, make_study
from wardround.client.tasks.preference.evaluation import evaluate_replies
from wardround.client.tasks.preference.formats import read_judged, write_judged
from wardround.client.tasks.preference.likelihood import log_likelihoods
from wardround.client.tasks.preference.losses import LossSettings
from wardround.client.tasks.preference.methods import (
    NEEDS_BEST,
    NEEDS_REFERENCE,
    NEEDS_TWO,
    SIGNS,
    MethodSettings,
    Scored,
    find_method,
)
from wardround.client.tasks.preference.on_policy import (
    Notebook,
    SamplingSettings,
    write_replies,
)
from wardround.client.tasks.preference.records import Judged
from wardround.client.tasks.preference.rewards import RewardSettings
from wardround.client.trainable import Trainable
from wardround.privacy import Unit
from wardround.privacy.errors import BadInput
from wardround.privacy.tables import from_table


@dataclass(frozen=True)
class PreferenceConfig:
    """The ``[task]`` table.

    Attributes:
        method: A loss on pairs or a method on scored replies, by name.
        max_length: Tokens of prompt and reply together.
        least_gap: Prompts whose best and worst reply score closer than this teach nothing.
        max_probes: Prompts of a file to evaluate on.
        loss: Settings of the losses on pairs.
        replies: Settings of the methods on scored replies.
        sampling: Whether the model writes the replies it learns from.
        reward: What a written reply is worth; also used to evaluate.
        generated: How large a generated study is.
    """

    method: str = "dpo"
    max_length: int = 256
    least_gap: float = 0.0
    max_probes: int = 100
    loss: LossSettings = field(default_factory=LossSettings)
    replies: MethodSettings = field(default_factory=MethodSettings)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    reward: RewardSettings = field(default_factory=RewardSettings)
    generated: AdviceShape = field(default_factory=AdviceShape)

    def __post_init__(self) -> None:
        find_method(self.method)
        if not 8 <= self.max_length <= 32768:
            raise ValueError(f"max_length is {self.max_length}; it must be between 8 and 32768")
        if not self.least_gap >= 0:
            raise ValueError(f"least_gap is {self.least_gap}; it must be 0 or more")
        if self.max_probes < 1:
            raise ValueError(f"max_probes is {self.max_probes}; it must be 1 or more")
        if self.method == "exo" and not self.loss.label_smoothing:
            raise ValueError("method is 'exo', which needs loss.label_smoothing above 0")
        if self.sampling.share and not self.reward.given:
            raise ValueError("sampling.share is above 0; written replies need a [task.reward]")
        if self.sampling.share and self.sampling.replies < 2 and self.method in NEEDS_TWO:
            raise ValueError(f"sampling.replies is 1; method {self.method!r} needs 2 or more")


@dataclass(frozen=True)
class JudgedBatch(Batch):
    """Replies of several prompts; ``inputs`` holds their scores and places too.

    Attributes:
        settings: The method and what it takes.
    """

    settings: PreferenceConfig


class PreferenceTask:
    """Replies that clinicians judged, and the model learning to give the better ones."""

    name: ClassVar[str] = "preference"
    summary: ClassVar[str] = (
        "Tune a model to the replies clinicians prefer (DPO and fifteen others)"
    )
    units: ClassVar[tuple[Unit, ...]] = (Unit.RECORD, Unit.CLINICIAN, Unit.PATIENT)

    def check(self, config: TaskConfig) -> None:
        """Raise ``BadInput`` naming the first field of ``[task]`` that cannot be used."""
        _settings(config)

    def load(self, source: Path, config: TaskConfig) -> Sequence[Record]:
        """The preferences of a file; ``BadInput`` names line and field.

        Raises:
            BadInput: Also when the method needs two replies and a record has one.
        """
        settings = _settings(config)
        records = read_judged(source)
        if settings.method in NEEDS_TWO and settings.sampling.share < 1:
            lone = next((r.id for r in records if len(r.content.replies) < 2), None)
            if lone is not None:
                raise BadInput(
                    f"{source}: record {lone!r} has one reply; method {settings.method!r} needs "
                    "two or more, filtered-cloning and reinforce do not"
                )
        return records

    def deal(
        self, source: Path | None, folder: Path, hospitals: int, seed: int, config: TaskConfig
    ) -> Dealt:
        """Write one file a hospital and one of probes, from a public file or generated advice.

        Privacy: ``source`` must be public.
        """
        settings = _settings(config)
        if source is None:
            shares, probes = make_study(settings.generated, hospitals, seed)
        else:
            records = Draws(seed, "preference/deal").shuffled(read_judged(source))
            held = min(settings.max_probes, max(1, len(records) // 10))
            probes, kept = records[:held], records[held:]
            shares = [kept[number::hospitals] for number in range(hospitals)]
        folder.mkdir(parents=True, exist_ok=True)
        files = tuple(folder / f"hospital-{number}.jsonl" for number in range(hospitals))
        for path, share in zip(files, shares, strict=True):
            write_judged(share, path)
        write_judged(probes, folder / "probes.jsonl")
        return Dealt(files, tuple(map(len, shares)), folder / "probes.jsonl")

    def adapt(
        self,
        model: nn.Module,
        tokenizer: Any,
        adapter: Mapping[str, Any],
        config: TaskConfig,
        generator: torch.Generator,
    ) -> Trainable:
        """LoRA factors on the modules that ``[adapter]`` names; the reference has them off."""
        return attach_lora(model, AdapterConfig.from_table(adapter), generator)

    def before_step(
        self,
        model: nn.Module,
        tokenizer: Any,
        units: Sequence[Sequence[Record]],
        config: TaskConfig,
        step: int,
        notebook: MutableMapping[str, Any],
        generator: torch.Generator,
    ) -> Sequence[Sequence[Record]]:
        """The units with replies the model has just written, where the settings ask for them."""
        settings = _settings(config)
        if not settings.sampling.share:
            return units
        written: Notebook = notebook
        return write_replies(
            model,
            tokenizer,
            units,
            settings.sampling,
            settings.reward,
            settings.max_length,
            step,
            written,
            generator,
        )

    def collate(
        self, units: Sequence[Sequence[Record]], tokenizer: Any, config: TaskConfig
    ) -> Batch:
        """One row a reply; of a method on pairs, only the best and the worst of a prompt's."""
        settings = _settings(config)
        table = _Table(settings)
        for number, records in enumerate(units):
            for record in records:
                table.add(record.content, number, tokenizer)
        return table.batch(tokenizer, len(units))

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """A unit's loss is the sum of its prompts', each by the method the study names."""
        if not isinstance(batch, JudgedBatch):
            raise TypeError(f"expected a JudgedBatch; this is {type(batch).__name__}")
        settings = batch.settings
        device = next(model.parameters()).device
        inputs = {name: value.to(device) for name, value in batch.inputs.items()}
        likely, tokens = log_likelihoods(model, inputs)
        reference = torch.zeros_like(likely)
        if settings.method in NEEDS_REFERENCE:
            with torch.no_grad(), without_adapter(model):
                reference, _ = log_likelihoods(model, inputs)
        written = inputs["written"].to(likely)
        groups = int(inputs["group"].max()) + 1 if len(likely) else 0
        scored = Scored(
            likely=likely,
            reference=reference,
            written=torch.where(written.isnan(), reference, written),
            tokens=tokens,
            scores=inputs["score"].to(likely),
            group=inputs["group"],
            role=inputs["role"],
            groups=groups,
        )
        found = find_method(settings.method)(scored, settings.loss, settings.replies)
        kept = torch.zeros_like(found).index_copy(0, scored.group, inputs["kept"].to(found))
        unit = torch.zeros_like(scored.group[:1].expand(groups)).index_copy(
            0, scored.group, batch.unit_of_row.to(device)
        )
        return likely.new_zeros(batch.units).index_add(0, unit, found * kept)

    def evaluate(
        self, model: nn.Module, tokenizer: Any, records: Sequence[Record], config: TaskConfig
    ) -> Metrics:
        """Which reply of each pair the model favours, and what its own replies are worth.

        Privacy: exact figures about ``records``; they stay where the records are.
        """
        settings = _settings(config)
        return evaluate_replies(
            model,
            tokenizer,
            [record.content for record in records],
            settings.reward,
            settings.max_length,
            settings.sampling.max_tokens,
        )

    def export(
        self,
        trainable: Trainable,
        adapter: Mapping[str, Any],
        arrays: Mapping[str, Tensor],
        base: str,
        folder: Path,
        note: str,
    ) -> None:
        """Write the adapter in PEFT's format."""
        save_adapter(trainable, AdapterConfig.from_table(adapter), arrays, base, folder, note)


class _Table:
    """Rows of a batch as they come together."""

    def __init__(self, settings: PreferenceConfig) -> None:
        self._settings = settings
        self._rows: list[rows.Row] = []
        self._units: list[int] = []
        self._columns: dict[str, list[float]] = {
            name: [] for name in ("score", "role", "group", "kept", "written")
        }
        self._groups = 0

    def add(self, judged: Judged, unit: int, tokenizer: Any) -> None:
        """One prompt with the replies that the method looks at."""
        settings, columns = self._settings, self._columns
        roles = {judged.best: 1}
        if judged.worst != judged.best:
            roles[judged.worst] = -1
        places = sorted(roles) if settings.method in NEEDS_TWO else range(len(judged.replies))
        if settings.method in NEEDS_BEST:
            places = [judged.best]
        enough = settings.method not in NEEDS_TWO or len(roles) == 2
        for place in places:
            role = roles.get(place, 0)
            sign = f"{SIGNS[role]} " if settings.method == "feedme" else ""
            self._rows.append(
                rows.encode(
                    tokenizer, sign + judged.prompt, judged.replies[place], settings.max_length
                )
            )
            columns["score"].append(judged.scores[place])
            columns["role"].append(role)
            columns["group"].append(self._groups)
            columns["kept"].append(enough and judged.gap >= settings.least_gap)
            columns["written"].append(judged.written[place] if judged.written else math.nan)
            self._units.append(unit)
        self._groups += 1

    def batch(self, tokenizer: Any, units: int) -> JudgedBatch:
        """The rows as tensors."""
        inputs = rows.pad(self._rows, rows.pad_token_id(tokenizer))
        for name, column in self._columns.items():
            kind = torch.float64 if name in ("score", "written") else torch.long
            inputs[name] = torch.tensor(column, dtype=kind)
        unit_of_row = torch.tensor(self._units, dtype=torch.long)
        return JudgedBatch(inputs, unit_of_row, units, self._settings)


def _settings(config: TaskConfig) -> PreferenceConfig:
    """The table, checked."""
    return from_table(PreferenceConfig, config, "[task]")
