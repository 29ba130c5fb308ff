"""Instruction tuning as a task: SuperNI task packs in, one loss a privacy unit out.

A row is a unit of its own only where the exemplars that prompts show are public or synthetic: a
private exemplar stands in the prompts of many rows, and then the whole task is the unit. Knows
nothing of noise, ledgers or the network. Source: Xue et al. (2024), "PACIT: unlocking the power of
examples for better in-context instruction tuning".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from wardround.client.lora import AdapterConfig, attach_lora, save_adapter
from wardround.client.tasks.base import Batch, Dealt, Metrics, Record, TaskConfig
from wardround.client.tasks.pacit.config import pacit_config
from wardround.client.tasks.pacit.evaluation import ask, evaluate_answers, questions, training_row
from wardround.client.tasks.pacit.formats import read_tasks, write_tasks
from wardround.client.tasks.pacit.generated import make_pack, split_tasks
from wardround.client.tasks.pacit.records import Source
from wardround.client.tasks.pacit.rows import pad_rows, row_losses
from wardround.client.tasks.pacit.templates import Style
from wardround.client.tasks.rows import pad_token_id
from wardround.client.trainable import Trainable
from wardround.privacy import Unit
from wardround.privacy.errors import BadInput


class PacitTask:
    """Instructions with exemplars, and the model learning to judge them before it answers."""

    name: ClassVar[str] = "pacit"
    summary: ClassVar[str] = "Follow instructions after judging their examples (PACIT, ICIT)"
    units: ClassVar[tuple[Unit, ...]] = (Unit.RECORD, Unit.PATIENT, Unit.TASK)
    records_add_up: ClassVar[bool] = True

    def check(self, config: TaskConfig) -> None:
        """Raise ``BadInput`` naming the first field of ``[task]`` that cannot be used."""
        pacit_config(config)

    def units_under(self, config: TaskConfig) -> tuple[Unit, ...]:
        """Whole tasks alone where prompts may show private exemplars; all units otherwise."""
        private = pacit_config(config).exemplar_source is Source.PRIVATE
        return (Unit.TASK,) if private else self.units

    def load(self, source: Path, config: TaskConfig) -> Sequence[Record]:
        """The instances of SuperNI's task JSON; ``BadInput`` names line and field.

        Raises:
            BadInput: Also when exemplars are more delicate than the study says.
        """
        allowed, order = pacit_config(config).exemplar_source, list(Source)
        records = read_tasks(source)
        for record in records:
            found = record.content.task.most_delicate
            if order.index(found) > order.index(allowed):
                raise BadInput(
                    f"{source}: task {record.content.task.name!r} has {found} exemplars, and "
                    f"[task] exemplar_source is {allowed.value!r}: prompts of many rows show an "
                    "exemplar, so protecting rows would not protect it. Replace them, say whose "
                    "they are, or set exemplar_source = 'private' and [privacy] unit = 'task'"
                )
        return records

    def deal(
        self, source: Path | None, folder: Path, hospitals: int, seed: int, config: TaskConfig
    ) -> Dealt:
        """Write one file of tasks a hospital and one of probes, from a public pack or made up.

        Privacy: ``source`` must be public; its exemplars are marked so.
        """
        settings = pacit_config(config)
        if source is None:
            shares, probes = make_pack(settings.generated, hospitals, seed)
        else:
            shares, probes = split_tasks(
                read_tasks(source), hospitals, seed, settings.per_task, settings.max_probes
            )
            if not all(shares):
                raise BadInput(f"{source}: too few instances for {hospitals} hospitals")
        folder.mkdir(parents=True, exist_ok=True)
        files = tuple(folder / f"hospital-{number}.jsonl" for number in range(hospitals))
        for path, share in zip(files, shares, strict=True):
            write_tasks(share, path)
        write_tasks(probes, folder / "probes.jsonl")
        return Dealt(files, tuple(map(len, shares)), folder / "probes.jsonl")

    def adapt(
        self,
        model: nn.Module,
        tokenizer: Any,
        adapter: Mapping[str, Any],
        config: TaskConfig,
        generator: torch.Generator,
    ) -> Trainable:
        """LoRA factors on the modules that ``[adapter]`` names."""
        return attach_lora(model, AdapterConfig.from_table(adapter), generator)

    def collate(
        self, units: Sequence[Sequence[Record]], tokenizer: Any, config: TaskConfig
    ) -> Batch:
        """One row a record."""
        settings = pacit_config(config)
        rows = [training_row(record, tokenizer, settings) for unit in units for record in unit]
        unit_of_row = [number for number, unit in enumerate(units) for _ in unit]
        inputs = pad_rows(rows, pad_token_id(tokenizer), settings.weights)
        return Batch(inputs, torch.tensor(unit_of_row, dtype=torch.long), len(units))

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """A unit's loss is the sum of its rows', each a weighted mean over its own tokens."""
        device = next(model.parameters()).device
        inputs = {name: value.to(device) for name, value in batch.inputs.items()}
        found = row_losses(model, inputs)
        return found.new_zeros(batch.units).index_add(0, batch.unit_of_row.to(device), found)

    def evaluate(
        self, model: nn.Module, tokenizer: Any, records: Sequence[Record], config: TaskConfig
    ) -> Metrics:
        """ROUGE-L, exact match and verdict accuracy of greedy replies.

        Privacy: exact figures about ``records``; they stay where the records are.
        """
        return evaluate_answers(model, tokenizer, records, pacit_config(config))

    def read_probes(self, source: Path, config: TaskConfig) -> Sequence[Record]:
        """Instances for evaluation alone; they may show any exemplars."""
        return read_tasks(source)

    def write_predictions(
        self,
        model: nn.Module,
        tokenizer: Any,
        records: Sequence[Record],
        config: TaskConfig,
        path: Path,
    ) -> Metrics:
        """Evaluate, and write each reply with its references as JSON lines.

        Privacy: as ``evaluate``; the file is for the house that holds the records.
        """
        settings = pacit_config(config)
        few_shot = settings.style is not Style.ZERO_SHOT
        asked = questions(records, tokenizer, settings, few_shot)
        lines = [
            {
                "id": one.record.id,
                "task": one.record.content.task.name,
                "prompt": one.prompt,
                "forced": one.forced,
                "reply": one.reply,
                "answer": one.answer.strip(),
                "references": list(one.record.content.outputs),
            }
            for one in ask(model, tokenizer, asked, settings)
        ]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        path.write_text(text, encoding="utf-8")
        return evaluate_answers(model, tokenizer, records, settings)

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
