"""Safeguarding as a task: labelled queries in, a soft prompt out that moves both kinds apart.

Nothing trains but the prompt's vectors, spliced into the chat template of a frozen base. Each
query's loss looks at that query alone. Base, template and anchors are fixed by hashes in the plan.
Knows nothing of noise, ledgers or the network. Source: Zheng et al. (2024), "On prompt-driven
safeguarding for large language models" (DRO), arXiv 2401.18018.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from wardround.client.tasks.base import Batch, Dealt, Metrics, Record, TaskConfig
from wardround.client.tasks.draws import Draws
from wardround.client.tasks.dro.config import Method, dro_config
from wardround.client.tasks.dro.evaluation import evaluate_safety
from wardround.client.tasks.dro.formats import read_queries, write_queries
from wardround.client.tasks.dro.generated import make_requests
from wardround.client.tasks.dro.learning import QueryBatch, attach_prompt, collate, losses
from wardround.client.tasks.dro.moments import (
    MomentBatch,
    Moments,
    attach_moments,
    collate_moments,
    compare,
    measured,
    moment_losses,
)
from wardround.client.tasks.dro.saving import save_moments, save_prompt
from wardround.client.tasks.dro.splice import SoftPrompted
from wardround.client.trainable import Trainable
from wardround.privacy import Unit
from wardround.privacy.errors import BadInput


class DroTask:
    """Queries that must be refused or answered, and a prompt that learns which are which."""

    name: ClassVar[str] = "dro"
    summary: ClassVar[str] = "Learn a safety prompt that refuses harmful queries only (DRO)"
    units: ClassVar[tuple[Unit, ...]] = (Unit.RECORD, Unit.CLINICIAN, Unit.PATIENT)
    records_add_up: ClassVar[bool] = True

    def check(self, config: TaskConfig) -> None:
        """Raise ``BadInput`` naming the first field of ``[task]`` that cannot be used."""
        dro_config(config)

    def load(self, source: Path, config: TaskConfig) -> Sequence[Record]:
        """The queries of a file; ``BadInput`` names line and field.

        Raises:
            BadInput: Also when the method learns from replies and a query has none.
        """
        settings, records = dro_config(config), read_queries(source)
        if settings.method is Method.VANILLA:
            lone = next((r.id for r in records if not (r.content.good and r.content.bad)), None)
            if lone is not None:
                raise BadInput(
                    f"{source}: record {lone!r} lacks a good or a bad reply; method 'vanilla' "
                    "learns from both, 'dro' from neither"
                )
        return records

    def deal(
        self, source: Path | None, folder: Path, hospitals: int, seed: int, config: TaskConfig
    ) -> Dealt:
        """Write one file a hospital and one of probes, from a public file or made up.

        Privacy: ``source`` must be public.
        """
        settings = dro_config(config)
        if source is None:
            shares, probes = make_requests(settings.generated, hospitals, seed)
        else:
            records = Draws(seed, "dro/deal").shuffled(read_queries(source))
            held = min(settings.max_probes, max(1, len(records) // 5))
            probes, kept = records[:held], records[held:]
            shares = [kept[number::hospitals] for number in range(hospitals)]
            if not all(shares):
                raise BadInput(f"{source}: too few queries for {hospitals} hospitals")
        folder.mkdir(parents=True, exist_ok=True)
        files = tuple(folder / f"hospital-{number}.jsonl" for number in range(hospitals))
        for path, share in zip(files, shares, strict=True):
            write_queries(share, path)
        write_queries(probes, folder / "probes.jsonl")
        return Dealt(files, tuple(map(len, shares)), folder / "probes.jsonl")

    def adapt(
        self,
        model: nn.Module,
        tokenizer: Any,
        adapter: Mapping[str, Any],
        config: TaskConfig,
        generator: torch.Generator,
    ) -> Trainable:
        """The prompt's vectors, which begin as its words; or the sums that anchors are made of.

        Raises:
            BadInput: ``[adapter]`` holds anything: what trains follows from ``[task]``. Or anchors
                are not those of the plan.
            PolicyRefused: The chat template is not the plan's.
        """
        if adapter:
            raise BadInput(f"[adapter] {next(iter(adapter))}: this task's adapter has no settings")
        settings = dro_config(config)
        if settings.method is Method.ANCHORS:
            return attach_moments(model, tokenizer, settings)
        return attach_prompt(model, tokenizer, settings)

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
        """Where anchors are made, the base is asked first; otherwise the units as they are."""
        if not isinstance(model, Moments) or not units:
            return units
        return measured(model, tokenizer, units, dro_config(config), generator)

    def collate(
        self, units: Sequence[Sequence[Record]], tokenizer: Any, config: TaskConfig
    ) -> Batch:
        """One row a query, under the soft prompt and under its words; two of vanilla tuning."""
        settings = dro_config(config)
        if settings.method is Method.ANCHORS:
            return collate_moments(units, tokenizer, settings)
        return collate(units, tokenizer, settings)

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """A unit's loss is the sum of its queries', each a function of that query alone."""
        if isinstance(model, Moments) and isinstance(batch, MomentBatch):
            return moment_losses(model, batch)
        if isinstance(model, SoftPrompted) and isinstance(batch, QueryBatch):
            return losses(model, batch)
        raise TypeError(f"{type(model).__name__} and {type(batch).__name__} do not go together")

    def evaluate(
        self, model: nn.Module, tokenizer: Any, records: Sequence[Record], config: TaskConfig
    ) -> Metrics:
        """Both kinds of error, and the losses; of anchors, how near they are to exact ones.

        Privacy: exact figures about ``records``; they stay where the records are.
        """
        settings, queries = dro_config(config), [record.content for record in records]
        if isinstance(model, Moments):
            return compare(model, tokenizer, queries, settings)
        if not isinstance(model, SoftPrompted):
            raise TypeError(f"expected a soft prompt; this is {type(model).__name__}")
        return evaluate_safety(model, tokenizer, queries, settings)

    def export(
        self,
        trainable: Trainable,
        adapter: Mapping[str, Any],
        arrays: Mapping[str, Tensor],
        base: str,
        folder: Path,
        note: str,
    ) -> None:
        """Write the prompt, for PEFT too where PEFT can place it exactly; or anchors."""
        if isinstance(trainable.model, Moments):
            save_moments(trainable.model, arrays, base, folder, note)
        else:
            save_prompt(trainable, arrays, base, folder, note)
