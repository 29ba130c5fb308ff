"""Ranking: a hospital's own notes for its own queries, by how likely the query is after the note.

A query with its whole list is one privacy unit; so is a patient with all lists drawn in her chart.
Stage 1 is public and happens before a study (``stage_one``); this task is stage 2, federated.
Knows nothing of noise, ledgers or the network. Source: Zhang et al. (2024), "A two-stage adaptation
of large language models for text ranking" (TSARankLLM), arXiv 2311.16720.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from wardround.client.tasks.base import Batch, Dealt, Metrics, Record, TaskConfig
from wardround.client.tasks.ranking import rows, trains
from wardround.client.tasks.ranking.cached import score_pairs
from wardround.client.tasks.ranking.config import RankingConfig, ScorerName, ranking_config
from wardround.client.tasks.ranking.dealing import deal_public, probes_of
from wardround.client.tasks.ranking.evaluation import Pairs, evaluate_run, rank
from wardround.client.tasks.ranking.formats import read_lists, write_lists
from wardround.client.tasks.ranking.generated import make_ward
from wardround.client.tasks.ranking.head import head_scores
from wardround.client.tasks.ranking.lists import (
    ListBatch,
    collate_lists,
    encode_pairs,
    unit_losses,
)
from wardround.client.tasks.ranking.metrics import Run
from wardround.client.tasks.ranking.trec import write_run
from wardround.client.trainable import Trainable
from wardround.privacy import Unit

ROWS_PER_PASS = 64


class RankingTask:
    """Query likelihood, taught by lists that hold an answer and near misses."""

    name: ClassVar[str] = "ranking"
    summary: ClassVar[str] = "Rank a hospital's notes for its queries (TSARankLLM's second stage)"
    units: ClassVar[tuple[Unit, ...]] = (Unit.RECORD, Unit.PATIENT)

    def check(self, config: TaskConfig) -> None:
        """Refuse what cannot be used, and what would couple records, with the reason."""
        ranking_config(config)

    def load(self, source: Path, config: TaskConfig) -> Sequence[Record]:
        """Queries with their lists, from JSON lines of Tevatron's or FlagEmbedding's kind.

        Raises:
            BadInput: Naming file, line and field.
        """
        return read_lists(source)

    def deal(
        self, source: Path | None, folder: Path, hospitals: int, seed: int, config: TaskConfig
    ) -> Dealt:
        """Write one file of lists a hospital and one of probes.

        From a public collection (a BEIR or MS MARCO folder, or a file of lists), or from the
        generated ward.

        Privacy: lists are found in the whole collection, so ``source`` must be public.
        """
        settings = ranking_config(config)
        if source is None:
            ward = make_ward(settings.generated, hospitals, seed)
        else:
            ward = deal_public(source, hospitals, seed, settings.lists, settings.max_probes)
        folder.mkdir(parents=True, exist_ok=True)
        files = tuple(folder / f"hospital-{number}.jsonl" for number in range(hospitals))
        for path, records in zip(files, ward.hospitals, strict=True):
            write_lists(records, path)
        write_lists(ward.probes, folder / "probes.jsonl")
        return Dealt(files, tuple(map(len, ward.hospitals)), folder / "probes.jsonl", ward.notes)

    def adapt(
        self,
        model: nn.Module,
        tokenizer: Any,
        adapter: Mapping[str, Any],
        config: TaskConfig,
        generator: torch.Generator,
    ) -> Trainable:
        """LoRA factors, or with ``[adapter] last_blocks`` the last blocks; a head if so scored."""
        head = ranking_config(config).scorer is ScorerName.HEAD
        return trains.attach(model, adapter, head, generator)

    def collate(
        self, units: Sequence[Sequence[Record]], tokenizer: Any, config: TaskConfig
    ) -> Batch:
        """One row a passage; a unit's rows are those of all its lists."""
        return collate_lists(units, tokenizer, ranking_config(config))

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """A unit's loss is the sum of its lists', each a function of that list alone."""
        if not isinstance(batch, ListBatch):
            raise TypeError("a ranking batch comes from this task's collate")
        return unit_losses(model, batch)

    def evaluate(
        self, model: nn.Module, tokenizer: Any, records: Sequence[Record], config: TaskConfig
    ) -> Metrics:
        """nDCG, reciprocal rank, average precision and recall, beside the first stage's.

        Privacy: exact figures about ``records``; they stay where the records are.
        """
        run = self.rank(model, tokenizer, records, config)
        return evaluate_run(records, run, ranking_config(config).measures)

    def rank(
        self, model: nn.Module, tokenizer: Any, records: Sequence[Record], config: TaskConfig
    ) -> Run:
        """Every candidate's score, by query and passage.

        Privacy: as ``evaluate``.
        """
        settings = ranking_config(config)

        def score(pairs: Pairs) -> list[float]:
            return score_texts(model, tokenizer, pairs, settings)

        return rank(records, score)

    def read_probes(self, source: Path, config: TaskConfig) -> Sequence[Record]:
        """Records for evaluation alone: lists, or a collection that the first stage looks through.

        Privacy: lists found in a collection depend on all of it; they are never trained on.
        """
        settings = ranking_config(config)
        if source.is_dir():
            return probes_of(source, settings.lists.depth, settings.max_probes)
        return self.load(source, config)

    def write_predictions(
        self,
        model: nn.Module,
        tokenizer: Any,
        records: Sequence[Record],
        config: TaskConfig,
        path: Path,
    ) -> Metrics:
        """Evaluate, and write the ranking as a TREC run file.

        Privacy: as ``evaluate``; the file is for the house that holds the records.
        """
        run = self.rank(model, tokenizer, records, config)
        write_run(run, path, tag="wardround")
        return evaluate_run(records, run, ranking_config(config).measures)

    def export(
        self,
        trainable: Trainable,
        adapter: Mapping[str, Any],
        arrays: Mapping[str, Tensor],
        base: str,
        folder: Path,
        note: str,
    ) -> None:
        """Write what was learnt: PEFT's format for LoRA, safetensors for blocks and head."""
        trains.export(trainable, adapter, arrays, base, folder, note)


def score_texts(
    model: nn.Module, tokenizer: Any, pairs: Pairs, config: RankingConfig
) -> list[float]:
    """Scores of (passage, query) texts, each passage read once."""
    if config.scorer is ScorerName.HEAD:
        device = next(model.parameters()).device
        found: list[float] = []
        with torch.no_grad():
            for start in range(0, len(pairs), ROWS_PER_PASS):
                inputs = encode_pairs(pairs[start : start + ROWS_PER_PASS], tokenizer, config)
                moved = {name: value.to(device) for name, value in inputs.items()}
                found += head_scores(model, moved).tolist()
        return found
    encoded = [
        rows.encode(tokenizer, passage, query, config.max_length, config.max_query)
        for passage, query in pairs
    ]
    return score_pairs(model, encoded, rows.pad_token_id(tokenizer))
