"""Spoken questions answered in speech: what is heard, the answer as text, then aloud, in one pass.

The unit of privacy is the speaker: a voice is biometric and comes back in every utterance. A
patient and a clinician on one recording are two people; name the one whose privacy is to be
protected as the speaker. Knows nothing of noise, ledgers or the network. Source: Nachmani et al.
(2024), "Spoken question answering and speech continuation using spectrogram-powered LLM"
(Spectron), arXiv 2305.15255; its body could not be read whole, see docs/spectron.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

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
from wardround.client.tasks.spectron import learner
from wardround.client.tasks.spectron.audio import encode
from wardround.client.tasks.spectron.config import spectron_config
from wardround.client.tasks.spectron.evaluation import evaluate_speech, listen, score
from wardround.client.tasks.spectron.formats import read_exchanges, write_exchanges
from wardround.client.tasks.spectron.generated import make_probes, make_ward
from wardround.client.tasks.spectron.mel import to_wave
from wardround.client.tasks.spectron.model import Parts
from wardround.client.tasks.spectron.rows import SpeechBatch, collate_exchanges, unit_losses
from wardround.client.trainable import Trainable
from wardround.privacy import Unit
from wardround.privacy.errors import BadInput


class SpectronTask:
    """Speech to text to speech, a speaker at a time."""

    name: ClassVar[str] = "spectron"
    summary: ClassVar[str] = "Answer spoken questions aloud, through text, in one pass (Spectron)"
    units: ClassVar[tuple[Unit, ...]] = (Unit.SPEAKER, Unit.PATIENT, Unit.RECORD)

    def check(self, config: TaskConfig) -> None:
        """Raise ``BadInput`` naming the first field of ``[task]`` that cannot be used."""
        spectron_config(config)

    def load(self, source: Path, config: TaskConfig) -> Sequence[Record]:
        """The exchanges of JSON lines; ``BadInput`` names file, line and field."""
        return read_exchanges(source)

    def deal(
        self, source: Path | None, folder: Path, hospitals: int, seed: int, config: TaskConfig
    ) -> Dealt:
        """Write one file of exchanges a hospital and one of probes; whole speakers are dealt."""
        shape = spectron_config(config).generated
        if source is None:
            shares = [make_ward(shape, f"h{n + 1}", seed) for n in range(hospitals)]
            probes = make_probes(shape, seed)
        else:
            shares, probes = _dealt(source, self.load(source, config), hospitals)
        return write_dealt(folder, ".jsonl", shares, probes, write_exchanges)

    def adapt(
        self,
        model: nn.Module,
        tokenizer: Any,
        adapter: Mapping[str, Any],
        config: TaskConfig,
        generator: torch.Generator,
    ) -> Trainable:
        """LoRA in the language model, and the light nets around it in full."""
        return learner.attach(model, adapter, generator)

    def collate(
        self, units: Sequence[Sequence[Record]], tokenizer: Any, config: TaskConfig
    ) -> Batch:
        """One row an exchange."""
        return collate_exchanges(units, tokenizer, spectron_config(config))

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """A unit's loss is the mean over its own exchanges."""
        if not isinstance(batch, SpeechBatch):
            raise TypeError("a batch of speech comes from this task's collate")
        return unit_losses(cast("Parts", model), batch)

    def evaluate(
        self, model: nn.Module, tokenizer: Any, records: Sequence[Record], config: TaskConfig
    ) -> Metrics:
        """Word errors, answers in text and aloud, and stand-ins for likeness and fluency.

        Privacy: exact figures about ``records``; they stay where the records are.
        """
        return evaluate_speech(cast("Parts", model), tokenizer, records, spectron_config(config))

    def read_probes(self, source: Path, config: TaskConfig) -> Sequence[Record]:
        """Records for evaluation alone; the same files."""
        return self.load(source, config)

    def write_predictions(
        self,
        model: nn.Module,
        tokenizer: Any,
        records: Sequence[Record],
        config: TaskConfig,
        path: Path,
    ) -> Metrics:
        """Evaluate, and write what was heard and said; the waves go into a folder beside the file.

        Privacy: transcripts and voices; for the house that holds the records.
        """
        settings, parts = spectron_config(config), cast("Parts", model)
        heard = listen(parts, tokenizer, records, settings)
        waves = path.with_suffix(".waves")
        waves.mkdir(parents=True, exist_ok=True)
        lines = []
        for number, one in enumerate(heard):
            wave = waves / f"{number:05d}.wav"
            wave.write_bytes(encode(to_wave(one.frames)))
            item = {"id": one.record.id, "transcript": one.transcript, "answer": one.answer}
            lines.append(json.dumps(item | {"audio": f"{waves.name}/{wave.name}"}) + "\n")
        path.write_text("".join(lines), encoding="utf-8")
        return score(parts, tokenizer, heard, settings)

    def export(
        self,
        trainable: Trainable,
        adapter: Mapping[str, Any],
        arrays: Mapping[str, Tensor],
        base: str,
        folder: Path,
        note: str,
    ) -> None:
        """Write all that trained as safetensors, with its settings."""
        learner.save(trainable, adapter, arrays, base, folder, note)


def _dealt(
    source: Path, records: Sequence[Record], hospitals: int
) -> tuple[list[list[Record]], list[Record]]:
    """Whole speakers by turns; every fifth is a probe."""
    shares: list[list[Record]] = [[] for _ in range(hospitals)]
    probes: list[Record] = []
    places: dict[str, int] = {}
    for record in records:
        place = places.setdefault(record.owners[Unit.SPEAKER], len(places))
        turn, rest = divmod(place, 5)
        (probes if rest == 4 else shares[(turn * 4 + rest) % hospitals]).append(record)
    if not probes or not all(shares):
        raise BadInput(f"{source}: {len(places)} speakers are too few for {hospitals} hospitals")
    return shares, probes
