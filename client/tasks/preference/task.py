"""Preference tuning as a task: judged replies in, one loss a privacy unit out.

A pair, or a prompt with all its replies, is one record; a clinician or a patient is a unit with all
of theirs, added up before the clip. Knows nothing of noise, ledgers or the network. Source: Tajwar
et al. (2024), "Preference fine-tuning of LLMs should leverage suboptimal, on-policy data".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from wardround.client.lora import AdapterConfig, attach_lora, save_adapter
from wardround.client.tasks import rows
from wardround.client.tasks.base import Batch, Dealt, Metrics, Record, TaskConfig
from wardround.client.tasks.preference.config import PreferenceConfig, preference_config
from wardround.client.tasks.preference.dealing import deal_judged
from wardround.client.tasks.preference.evaluation import evaluate_replies
from wardround.client.tasks.preference.formats import (
    LIST_REFERENCE,
    read_judged,
    write_judged,
)
from wardround.client.tasks.preference.labels import expecting_flips, labels_of, relabel
from wardround.client.tasks.preference.likelihood import likelihoods_of, log_likelihoods
from wardround.client.tasks.preference.methods import (
    NEEDS_BEST,
    NEEDS_REFERENCE,
    NEEDS_TWO,
    SIGNS,
    Scored,
    find_method,
)
from wardround.client.tasks.preference.on_policy import Notebook, write_replies
from wardround.client.tasks.preference.records import Judged
from wardround.client.tasks.preference.reference import as_reference, start_from
from wardround.client.trainable import Trainable
from wardround.privacy import Unit
from wardround.privacy.errors import BadInput


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
        preference_config(config)

    def load(self, source: Path, config: TaskConfig) -> Sequence[Record]:
        """The preferences of a file; ``BadInput`` names line and field.

        Raises:
            BadInput: Also when the method needs two replies and a record has one.
        """
        settings = preference_config(config)
        records = read_judged(source)
        if settings.method in NEEDS_TWO and settings.sampling.share < 1:
            lone = next((n for n, r in enumerate(records, 1) if len(r.content.replies) < 2), None)
            if lone is not None:
                raise BadInput(
                    f"{source}: record {lone} has one reply; method {settings.method!r} needs "
                    "two or more, filtered-cloning and reinforce do not"
                )
        if settings.reference.recorded and settings.method in NEEDS_REFERENCE:
            bare = next((n for n, r in enumerate(records, 1) if not r.content.reference), None)
            if bare is not None:
                raise BadInput(
                    f"{source}: record {bare} has no {LIST_REFERENCE}; reference.recorded is true"
                )
        return records

    def deal(
        self, source: Path | None, folder: Path, hospitals: int, seed: int, config: TaskConfig
    ) -> Dealt:
        """Write one file a hospital and one of probes, from a public file or generated advice.

        Privacy: ``source`` must be public.
        """
        return deal_judged(source, folder, hospitals, seed, preference_config(config))

    def adapt(
        self,
        model: nn.Module,
        tokenizer: Any,
        adapter: Mapping[str, Any],
        config: TaskConfig,
        generator: torch.Generator,
    ) -> Trainable:
        """LoRA factors on the modules that ``[adapter]`` names, fresh or those of the reference."""
        settings, wanted = preference_config(config), AdapterConfig.from_table(adapter)
        trainable = attach_lora(model, wanted, generator)
        try:
            start_from(trainable, wanted, settings.reference)
        except BadInput:
            trainable.detach()
            raise
        return trainable

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
        settings = preference_config(config)
        if not settings.sampling.share:
            return units
        written: Notebook = notebook
        return write_replies(
            model,
            tokenizer,
            units,
            settings.sampling,
            settings.scorer,
            settings.max_length,
            step,
            written,
            generator,
        )

    def collate(
        self, units: Sequence[Sequence[Record]], tokenizer: Any, config: TaskConfig
    ) -> Batch:
        """One row a reply; of a method on pairs, only the best and the worst of a prompt's."""
        settings = preference_config(config)
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
            reference = inputs["reference"].to(likely)
            if not settings.reference.recorded:
                with as_reference(model, settings.reference):
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
        settings = preference_config(config)
        return evaluate_replies(
            model,
            tokenizer,
            [record.content for record in records],
            settings.reward,
            settings.max_length,
            settings.sampling.max_tokens,
            reference=settings.reference,
        )

    def labels(self, records: Sequence[Record]) -> Sequence[int]:
        """Which of its two replies each record prefers."""
        return labels_of(records)

    def relabel(self, records: Sequence[Record], labels: Sequence[int]) -> Sequence[Record]:
        """The records as if these were their labels."""
        return relabel(records, labels)

    def expecting_flips(self, config: TaskConfig, probability: float) -> TaskConfig:
        """The robust loss, told how often labels are wrong."""
        return expecting_flips(config, probability)

    def precompute(
        self, model: nn.Module, tokenizer: Any, source: Path, config: TaskConfig, path: Path
    ) -> int:
        """Write the records with what the reference says of each reply, for ``recorded``.

        Privacy: exact; for the house that holds the records.
        """
        settings, records = preference_config(config), read_judged(source)
        texts = [(r.content.prompt, reply) for r in records for reply in r.content.replies]
        with as_reference(model, settings.reference):
            found = iter(likelihoods_of(model, tokenizer, texts, settings.max_length).tolist())
        known = [tuple(next(found) for _ in record.content.replies) for record in records]
        write_judged(
            [
                replace(record, content=replace(record.content, reference=likely))
                for record, likely in zip(records, known, strict=True)
            ],
            path,
        )
        return len(records)

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
            name: [] for name in ("score", "role", "group", "kept", "written", "reference")
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
            for name, likely in (("written", judged.written), ("reference", judged.reference)):
                columns[name].append(likely[place] if likely else math.nan)
            self._units.append(unit)
        self._groups += 1

    def batch(self, tokenizer: Any, units: int) -> JudgedBatch:
        """The rows as tensors."""
        inputs = rows.pad(self._rows, rows.pad_token_id(tokenizer))
        for name, column in self._columns.items():
            kind = torch.float64 if name in ("score", "written", "reference") else torch.long
            inputs[name] = torch.tensor(column, dtype=kind)
        unit_of_row = torch.tensor(self._units, dtype=torch.long)
        return JudgedBatch(inputs, unit_of_row, units, self._settings)
