"""Medical editing: a language model learns the corrected answers of several hospitals' records.

What trains is plain LoRA, LoRA with traced scales (MedLaSA) or whole layers; the loss is the same,
cross-entropy on the corrected answer. A record with all its paraphrases is one privacy unit; so is
a patient with all of hers. Knows nothing of noise, ledgers or the network. Source: Xu et al.
(2024), "Editing factual knowledge and explanatory ability of medical LLMs".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from wardround.client.lora import AdapterConfig
from wardround.client.tasks import rows
from wardround.client.tasks.base import Batch, Dealt, Metrics, Record, TaskConfig
from wardround.client.tasks.draws import Draws
from wardround.client.tasks.editing.evaluation import by_relation, score_edits, summary
from wardround.client.tasks.editing.formats import read_edits, write_edits
from wardround.client.tasks.editing.generated import StudyShape, make_study
from wardround.client.tasks.editing.methods import (
    Method,
    attach,
    query_scales,
    save,
    without_edits,
)
from wardround.client.tasks.editing.public import PublicShape, deal_public
from wardround.client.tasks.editing.records import Edit
from wardround.client.tasks.editing.router import RouterKind
from wardround.client.tasks.editing.row_scales import Prompt, scales_of
from wardround.client.tasks.editing.scales import ScaleConfig
from wardround.client.tasks.editing.splits import hold_out, split_over
from wardround.client.tasks.editing.subjects import place_subject
from wardround.client.tasks.editing.tracing import TraceConfig
from wardround.client.trainable import Trainable
from wardround.privacy import Unit
from wardround.privacy.tables import from_table


@dataclass(frozen=True)
class EditingConfig:
    """The ``[task]`` table.

    Attributes:
        max_length: Tokens of prompt and answer together; the reference's 200, and room to spare.
        eos: Teach the answer's end too.
        method: What trains: ``lora``, ``medlasa`` or ``ft``.
        router: Under ``medlasa``, where the scales of an evaluated question come from.
        trace: Under ``medlasa``, how facts are traced.
        scale: Under ``medlasa``, how traces become multipliers.
        max_probes: Corrections of a file to evaluate on.
        public: What a public file is made into.
        generated: How large a generated study is.
    """

    max_length: int = 256
    eos: bool = True
    method: Method = Method.LORA
    router: RouterKind = RouterKind.TRACE
    trace: TraceConfig = field(default_factory=TraceConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    max_probes: int = 100
    public: PublicShape = field(default_factory=PublicShape)
    generated: StudyShape = field(default_factory=StudyShape)

    def __post_init__(self) -> None:
        if not 8 <= self.max_length <= 32768:
            raise ValueError(f"max_length is {self.max_length}; it must be between 8 and 32768")
        if self.max_probes < 1:
            raise ValueError(f"max_probes is {self.max_probes}; it must be 1 or more")
        if self.method is Method.MEMIT:
            raise ValueError(
                "method is 'memit'; it solves for its change from plain records, so it is for "
                "public corrections: wardround edit"
            )


class EditingTask:
    """Corrections that several records agree on, taught to a language model."""

    name: ClassVar[str] = "editing"
    summary: ClassVar[str] = (
        "Correct a language model's medical facts (MedLaSA, LoRA or whole layers)"
    )
    records_add_up: ClassVar[bool] = True
    units: ClassVar[tuple[Unit, ...]] = (Unit.RECORD, Unit.PATIENT, Unit.CLINICIAN)

    def check(self, config: TaskConfig) -> None:
        """Raise ``BadInput`` naming the first field of ``[task]`` that cannot be used."""
        _settings(config)

    def load(self, source: Path, config: TaskConfig) -> Sequence[Record]:
        """The corrections of a MedCF, MedFE or EasyEdit file; ``BadInput`` names line and field."""
        return read_edits(source)

    def deal(
        self, source: Path | None, folder: Path, hospitals: int, seed: int, config: TaskConfig
    ) -> Dealt:
        """Write one file a hospital and one of probes, from a public file or the generated world.

        Of a file, corrections that contradict each other are held out. Under ``[task.public]``
        some are copied into many records and asked about; else each is dealt out once, and the
        probes are ``max_probes`` of them.

        Privacy: holding out looks at all records at once, so ``source`` must be public.
        """
        settings = _settings(config)
        if source is None:
            study = make_study(settings.generated, hospitals, seed)
            return _write(folder, study.hospitals, study.probes, ())
        kept, report = hold_out(read_edits(source))
        if settings.public.corroborated:
            dealt, asked = deal_public(kept, settings.public, hospitals, seed)
            return _write(folder, dealt, asked, report.notes())
        probes = Draws(seed, "editing/probes").shuffled(kept)[: settings.max_probes]
        return _write(folder, split_over(kept, hospitals, seed), probes, report.notes())

    def adapt(
        self,
        model: nn.Module,
        tokenizer: Any,
        adapter: Mapping[str, Any],
        config: TaskConfig,
        generator: torch.Generator,
    ) -> Trainable:
        """What ``method`` trains, on the modules that ``[adapter]`` names."""
        settings, where = _settings(config), AdapterConfig.from_table(adapter)
        return attach(model, settings.method, where, settings.trace, settings.scale, generator)

    def collate(
        self, units: Sequence[Sequence[Record]], tokenizer: Any, config: TaskConfig
    ) -> Batch:
        """One row a phrasing; a record's rows weigh 1 together."""
        settings = _settings(config)
        encoded: list[rows.Row] = []
        prompts: list[Prompt] = []
        weights: list[float] = []
        unit_of_row: list[int] = []
        for number, records in enumerate(units):
            for record in records:
                edit: Edit = record.content
                traced = place_subject(tokenizer, edit.prompt, edit.subject)
                prompts += [traced] * len(edit.prompts)
                for prompt in edit.prompts:
                    encoded.append(
                        rows.encode(
                            tokenizer, prompt, edit.target_new, settings.max_length, settings.eos
                        )
                    )
                    weights.append(1 / len(edit.prompts))
                    unit_of_row.append(number)
        inputs = rows.pad(encoded, rows.pad_token_id(tokenizer))
        if settings.method is Method.MEDLASA:
            inputs |= rows.pad_prompts(prompts, settings.max_length)
        inputs["weight"] = torch.tensor(weights, dtype=torch.float64)
        return Batch(inputs, torch.tensor(unit_of_row, dtype=torch.long), len(units))

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """A unit's loss is the sum of its records'; a record's is the mean of its phrasings'.

        A phrasing's is the mean cross-entropy over answer tokens and end token.
        """
        device = next(model.parameters()).device
        inputs = {name: value.to(device) for name, value in batch.inputs.items()}
        scales = scales_of(model)
        with scales.during_rows(batch.inputs) if scales else nullcontext():
            losses = rows.answer_losses(model, inputs)
        weighted = losses * inputs["weight"].to(losses.dtype)
        return losses.new_zeros(batch.units).index_add(0, batch.unit_of_row.to(device), weighted)

    def evaluate(
        self, model: nn.Module, tokenizer: Any, records: Sequence[Record], config: TaskConfig
    ) -> Metrics:
        """Efficacy, generality and locality, over all records and by kind of support.

        What the model said before the edits is what it says with its adapter switched off, so
        coordinator and hospital need no stored answers.

        Privacy: exact figures about ``records``; they stay where the records are.
        """
        return summary(self._scores(model, tokenizer, records, config))

    def read_probes(self, source: Path, config: TaskConfig) -> Sequence[Record]:
        """Corrections to ask about, as ``load`` reads them."""
        return self.load(source, config)

    def write_predictions(
        self,
        model: nn.Module,
        tokenizer: Any,
        records: Sequence[Record],
        config: TaskConfig,
        path: Path,
    ) -> Metrics:
        """Evaluate, and write what was found for each correction and relation, as JSON.

        Privacy: as ``evaluate``; the file is for the house that holds the records.
        """
        scores = self._scores(model, tokenizer, records, config)
        edits: list[Edit] = [record.content for record in records]
        document = {
            "metrics": summary(scores),
            "relations": by_relation(edits, scores),
            "corrections": {
                record.id: summary([found]) for record, found in zip(records, scores, strict=True)
            },
        }
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")
        return summary(scores)

    def _scores(
        self, model: nn.Module, tokenizer: Any, records: Sequence[Record], config: TaskConfig
    ) -> list[dict[str, list[float]]]:
        """What is found for each correction."""
        settings = _settings(config)
        edits: list[Edit] = [record.content for record in records]
        during = query_scales(settings.router, model, tokenizer, edits)
        return score_edits(model, tokenizer, edits, settings.max_length, without_edits, during)

    def export(
        self,
        trainable: Trainable,
        adapter: Mapping[str, Any],
        arrays: Mapping[str, Tensor],
        base: str,
        folder: Path,
        note: str,
    ) -> None:
        """Write what was learnt in PEFT's format, and how to find a query's scales beside it."""
        save(trainable, AdapterConfig.from_table(adapter), arrays, base, folder, note)


def _settings(config: TaskConfig) -> EditingConfig:
    """The table, checked."""
    return from_table(EditingConfig, config, "[task]")


def _write(
    folder: Path,
    hospitals: Sequence[Sequence[Record]],
    probes: Sequence[Record],
    notes: tuple[str, ...],
) -> Dealt:
    """One file a hospital and one of probes."""
    folder.mkdir(parents=True, exist_ok=True)
    files = tuple(folder / f"hospital-{number}.jsonl" for number in range(len(hospitals)))
    for path, records in zip(files, hospitals, strict=True):
        write_edits(records, path)
    write_edits(probes, folder / "probes.jsonl")
    return Dealt(files, tuple(map(len, hospitals)), folder / "probes.jsonl", notes)
