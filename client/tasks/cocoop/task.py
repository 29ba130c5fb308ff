"""Prompt learning as a task: pictures with their names in, one loss a privacy unit out.

A picture is one record and by default the unit; a patient with all pictures of hers, their losses
added up before the clip, is the other. Knows nothing of noise, ledgers or the network. Sources:
Zhou et al. (2022), "Learning to prompt for vision-language models" (CoOp), arXiv 2109.01134; Zhou
et al. (2022), "Conditional prompt learning for vision-language models" (CoCoOp), arXiv 2203.05557.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from wardround.client.tasks.base import (
    Batch,
    Dealt,
    Metrics,
    Record,
    TaskConfig,
    write_dealt,
)
from wardround.client.tasks.cocoop.config import CocoopConfig, PromptConfig, cocoop_config
from wardround.client.tasks.cocoop.dealing import deal_generated, deal_public
from wardround.client.tasks.cocoop.evaluation import evaluate_names, halves
from wardround.client.tasks.cocoop.formats import TEST, read_pictures, write_pictures
from wardround.client.tasks.cocoop.inference import save_prompt
from wardround.client.tasks.cocoop.learner import PromptLearner, attach_prompt
from wardround.client.tasks.cocoop.records import Picture
from wardround.client.trainable import Trainable
from wardround.privacy import Unit
from wardround.privacy.tables import from_table

UNTAUGHT = -1  # the label of a picture whose name is not trained on


@dataclass(frozen=True)
class PictureBatch(Batch):
    """Pictures, one a row; ``inputs`` holds their labels among the base names.

    Attributes:
        pictures: What the model looks at; features of those it knows are not computed again.
        settings: The task's.
    """

    pictures: tuple[Picture, ...]
    settings: CocoopConfig


class CocoopTask:
    """A prompt that names pictures, learnt with the model of images and texts frozen."""

    name: ClassVar[str] = "cocoop"
    summary: ClassVar[str] = "Learn a prompt that names pictures (CoCoOp and CoOp, on CLIP)"
    units: ClassVar[tuple[Unit, ...]] = (Unit.RECORD, Unit.PATIENT)
    records_add_up: ClassVar[bool] = True

    def check(self, config: TaskConfig) -> None:
        """Raise ``BadInput`` naming the first field of ``[task]`` that cannot be used."""
        cocoop_config(config)

    def load(self, source: Path, config: TaskConfig) -> Sequence[Record]:
        """Pictures of JSON lines, a folder of folders, or a split's training part.

        Raises:
            BadInput: Naming file, line and field.
        """
        return read_pictures(source, cocoop_config(config).names)

    def deal(
        self, source: Path | None, folder: Path, hospitals: int, seed: int, config: TaskConfig
    ) -> Dealt:
        """Write one file of pictures a hospital and one of probes, public or generated.

        Privacy: ``source`` must be public.
        """
        settings = cocoop_config(config)
        if source is None:
            share = deal_generated(settings, hospitals, seed)
        else:
            share = deal_public(source, settings, hospitals, seed)
        return write_dealt(folder, ".jsonl", share.hospitals, share.probes, write_pictures)

    def adapt(
        self,
        model: nn.Module,
        tokenizer: Any,
        adapter: Mapping[str, Any],
        config: TaskConfig,
        generator: torch.Generator,
    ) -> Trainable:
        """The prompt's vectors, and CoCoOp's net."""
        settings = from_table(PromptConfig, adapter, "[adapter]")
        names = len(cocoop_config(config).base)
        return attach_prompt(model, tokenizer, settings, names, generator)

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
        """Each picture in one of its views, where the settings give it more than one."""
        views = cocoop_config(config).views
        if views == 1:
            return units

        def turned(record: Record) -> Record:
            view = 1 + int(torch.randint(views, (1,), generator=generator))
            return replace(record, content=replace(record.content, view=view))

        return [[turned(record) for record in records] for records in units]

    def collate(
        self, units: Sequence[Sequence[Record]], tokenizer: Any, config: TaskConfig
    ) -> Batch:
        """One row a picture."""
        settings = cocoop_config(config)
        label = {name: place for place, name in enumerate(settings.base)}
        pictures = tuple(record.content for records in units for record in records)
        labels = [label.get(picture.name, UNTAUGHT) for picture in pictures]
        owners = [place for place, records in enumerate(units) for _ in records]
        return PictureBatch(
            inputs={"label": torch.tensor(labels, dtype=torch.long)},
            unit_of_row=torch.tensor(owners, dtype=torch.long),
            units=len(units),
            pictures=pictures,
            settings=settings,
        )

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """A unit's loss is the sum of its pictures' cross-entropies among the base names.

        A picture whose name is not trained on teaches nothing; its loss is 0.
        """
        if not isinstance(batch, PictureBatch) or not isinstance(model, PromptLearner):
            raise TypeError("batch and model must come from this task's collate and adapt")
        features = model.look(batch.pictures, batch.settings.image)
        seen = model.seen(batch.pictures, features)
        logits = model.logits(features, seen, batch.settings.base)
        label = batch.inputs["label"].to(logits.device)
        losses = functional.cross_entropy(logits, label.clamp(min=0), reduction="none")
        losses = losses * (label != UNTAUGHT)
        unit = batch.unit_of_row.to(logits.device)
        return losses.new_zeros(batch.units).index_add(0, unit, losses)

    def evaluate(
        self, model: nn.Module, tokenizer: Any, records: Sequence[Record], config: TaskConfig
    ) -> Metrics:
        """Accuracy on base and new names and their harmonic mean, with zero-shot beside.

        Privacy: exact figures about ``records``; they stay where the records are.
        """
        pictures = [record.content for record in records]
        return evaluate_names(_learner(model), pictures, cocoop_config(config))

    def read_probes(self, source: Path, config: TaskConfig) -> Sequence[Record]:
        """Pictures for evaluation alone: as ``load``, but a split's test part."""
        return read_pictures(source, cocoop_config(config).names, TEST)

    def write_predictions(
        self,
        model: nn.Module,
        tokenizer: Any,
        records: Sequence[Record],
        config: TaskConfig,
        path: Path,
    ) -> Metrics:
        """Evaluate, and write each picture's name, what was said and how sure, as CSV.

        Privacy: as ``evaluate``; the file is for the house that holds the records.
        """
        settings, learner = cocoop_config(config), _learner(model)
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "name", "said", "probability"])
            for names in halves(learner, settings).values():
                own = [record for record in records if record.content.name in names]
                if not own:
                    continue
                logits = learner.predict([r.content for r in own], names, settings.image)
                best = logits.softmax(1).max(1)
                for record, sure, place in zip(
                    own, best.values.tolist(), best.indices.tolist(), strict=True
                ):
                    writer.writerow([record.id, record.content.name, names[place], f"{sure:.6f}"])
        return self.evaluate(model, tokenizer, records, config)

    def export(
        self,
        trainable: Trainable,
        adapter: Mapping[str, Any],
        arrays: Mapping[str, Tensor],
        base: str,
        folder: Path,
        note: str,
    ) -> None:
        """Write the vectors and the net under their published names, and how to use them."""
        save_prompt(trainable, adapter, arrays, base, folder, note)


def _learner(model: nn.Module) -> PromptLearner:
    """The model, if it is this task's."""
    if not isinstance(model, PromptLearner):
        raise TypeError(f"expected a PromptLearner; this is {type(model).__name__}")
    return model
