"""Click logs: what patients look at and what they take up, ranked with a loss over pairs.

A record is a session; a patient's sessions are hers; blocks of sessions are the unit ``list``. All
hospitals share one schema: clicks at one house and conversions at another would need a private
join and are not supported. Knows nothing of noise, ledgers or the network. Source: Durmus et al.
(2024), "Pairwise ranking loss for multi-task learning in recommender systems", arXiv 2406.02163.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from wardround.client.tasks.base import (
    Batch,
    Dealt,
    Metrics,
    Record,
    TaskConfig,
    write_dealt,
)
from wardround.client.tasks.pwiser.columns import Layout
from wardround.client.tasks.pwiser.config import NetConfig, pwiser_config
from wardround.client.tasks.pwiser.dealing import deal_file, deal_generated
from wardround.client.tasks.pwiser.evaluation import evaluate_log
from wardround.client.tasks.pwiser.formats import read_log, write_log
from wardround.client.tasks.pwiser.losses import Form
from wardround.client.tasks.pwiser.ranker import Ranker, attach, save
from wardround.client.tasks.pwiser.rows import LogBatch, collate_sessions, unit_losses
from wardround.client.trainable import Trainable
from wardround.privacy import Unit
from wardround.privacy.errors import BadInput
from wardround.privacy.tables import from_table


class PwiserTask:
    """Two predictions an exposure, and a ranking loss that keeps to one unit."""

    name: ClassVar[str] = "pwiser"
    summary: ClassVar[str] = "Predict what patients look at and take up, by a loss over pairs"
    units: ClassVar[tuple[Unit, ...]] = (Unit.RECORD, Unit.PATIENT, Unit.LIST)

    def check(self, config: TaskConfig) -> None:
        """Refuse what cannot be used, and pairs across units, with the reason."""
        pwiser_config(config)

    def load(self, source: Path, config: TaskConfig) -> Sequence[Record]:
        """The sessions of a csv file; ``BadInput`` names file, line and column."""
        settings = pwiser_config(config)
        return read_log(source, settings.schema, settings.blocks)

    def deal(
        self, source: Path | None, folder: Path, hospitals: int, seed: int, config: TaskConfig
    ) -> Dealt:
        """Write one file of sessions a hospital and one of probes."""
        settings = pwiser_config(config)
        if source is None:
            if settings.layout is not Layout.PROGRAMMES:
                raise BadInput(
                    f"[task] layout is {settings.layout.value!r}: logs are made up for "
                    f"{Layout.PROGRAMMES.value!r} alone; give a file with --data"
                )
            shares, probes = deal_generated(settings.generated, hospitals, seed)
        else:
            shares, probes = deal_file(source, self.load(source, config), hospitals)

        def write(records: Sequence[Record], path: Path) -> None:
            write_log(records, settings.schema, path)

        return write_dealt(folder, ".csv", shares, probes, write)

    def adapt(
        self,
        model: nn.Module,
        tokenizer: Any,
        adapter: Mapping[str, Any],
        config: TaskConfig,
        generator: torch.Generator,
    ) -> Trainable:
        """The net of the ``[adapter]`` table; the base is not looked at, so ``none`` will do."""
        settings, net = pwiser_config(config), from_table(NetConfig, adapter, "[adapter]")
        square = settings.pairwise.form is Form.SQUARE
        return attach(model, settings.schema, net, square, generator)

    def collate(
        self, units: Sequence[Sequence[Record]], tokenizer: Any, config: TaskConfig
    ) -> Batch:
        """One row an exposure."""
        return collate_sessions(units, pwiser_config(config))

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Cross-entropy of a unit's own rows, and what its own pairs cost."""
        if not isinstance(batch, LogBatch) or not isinstance(model, Ranker):
            raise TypeError("expected a batch and a net of this task")
        return unit_losses(model, batch)

    def evaluate(
        self, model: nn.Module, tokenizer: Any, records: Sequence[Record], config: TaskConfig
    ) -> Metrics:
        """AUC by exposure and by session, log loss and calibration, of both predictions.

        Privacy: exact figures about ``records``; they stay where the records are.
        """
        return evaluate_log(model, records, pwiser_config(config))

    def export(
        self,
        trainable: Trainable,
        adapter: Mapping[str, Any],
        arrays: Mapping[str, Tensor],
        base: str,
        folder: Path,
        note: str,
    ) -> None:
        """Write the net as safetensors, with its settings."""
        save(trainable, adapter, arrays, folder, note)
