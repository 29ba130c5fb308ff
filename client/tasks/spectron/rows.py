"""From exchanges to rows of a batch: spectrograms, tokens and how long each of them is.

A unit's loss is the mean over its own exchanges, so a speaker with many counts as one with few.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wardround.client.tasks.base import Batch, Record
from wardround.client.tasks.spectron.audio import SAMPLE_RATE, Sound
from wardround.client.tasks.spectron.config import SpectronTaskConfig
from wardround.client.tasks.spectron.mel import SILENCE, Floats, log_mel
from wardround.client.tasks.spectron.model import Parts
from wardround.client.tasks.spectron.records import Exchange
from wardround.client.tasks.spectron.sequence import row_losses

SEPARATOR = "|"
PARTS = ("question", "question_frames", "ids", "tokens", "answer", "answer_frames", "steps")


@dataclass(frozen=True)
class SpeechBatch(Batch):
    """Waves and tokens; spectrograms are made when the model, and so its bins, is known."""

    exchanges: tuple[Exchange, ...]
    tokenizer: Any
    config: SpectronTaskConfig


def collate_exchanges(
    units: Sequence[Sequence[Record]], tokenizer: Any, config: SpectronTaskConfig
) -> SpeechBatch:
    """One row an exchange, at most ``max_utterances`` of each unit."""
    chosen = [bounded(unit, config.max_utterances) for unit in units]
    owner = [place for place, unit in enumerate(chosen) for _ in unit]
    exchanges = tuple(record.content for unit in chosen for record in unit)
    ids, tokens = text_rows(exchanges, tokenizer, config.max_text)
    return SpeechBatch(
        {"ids": ids, "tokens": tokens},
        torch.tensor(owner, dtype=torch.long),
        len(units),
        exchanges,
        tokenizer,
        config,
    )


def unit_losses(parts: Parts, batch: SpeechBatch) -> Tensor:
    """One loss a unit, the mean over its own rows, shape ``(units,)``."""
    some: Tensor = next(parts.stop.parameters())
    inputs = {name: value.to(some.device) for name, value in model_rows(parts, batch).items()}
    losses = row_losses(parts, inputs, batch.config.weights)
    unit = batch.unit_of_row.to(some.device)
    total = losses.new_zeros(batch.units).index_add(0, unit, losses)
    return total / torch.bincount(unit, minlength=batch.units).clamp(min=1)


def model_rows(parts: Parts, batch: SpeechBatch) -> dict[str, Tensor]:
    """What ``sequence.run`` takes, padded on the right; frames are brought to scale."""
    config, settings = parts.config, batch.config
    dtype = next(parts.stop.parameters()).dtype
    questions = [spectrogram(e.question, config, settings.max_question_s) for e in batch.exchanges]
    answers = [spectrogram(e.answer, config, settings.max_answer_s) for e in batch.exchanges]
    step = config.frames_per_step
    frames = torch.tensor([len(answer) for answer in answers])
    steps = (frames + step - 1) // step
    padded = int(steps.max()) * step
    return {
        **batch.inputs,
        "question": _stacked(questions, max(map(len, questions)), config, dtype),
        "question_frames": torch.tensor([len(question) for question in questions]),
        "answer": _stacked(answers, padded, config, dtype),
        "answer_frames": frames,
        "steps": steps,
    }


def text_rows(exchanges: Sequence[Exchange], tokenizer: Any, most: int) -> tuple[Tensor, Tensor]:
    """Tokens of transcript, separator and answer between first and last token, and their number."""
    rows = []
    for exchange in exchanges:
        text = exchange.question_text + SEPARATOR + exchange.answer_text
        inner: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"][: most - 2]
        rows.append([tokenizer.bos_token_id, *inner, tokenizer.eos_token_id])
    longest = max(map(len, rows))
    filler = tokenizer.pad_token_id or 0
    ids = [[*row, *(filler,) * (longest - len(row))] for row in rows]
    return torch.tensor(ids), torch.tensor([len(row) for row in rows])


def spectrogram(sound: Sound, config: Any, most_s: float) -> Floats:
    """The log-mel frames of a sound's first seconds."""
    return _mel(sound, config.mel_bins, round(most_s * SAMPLE_RATE))


def scaled(frames: Floats, config: Any) -> Floats:
    """Frames around zero, by the base's public mean and deviation."""
    return np.asarray((frames - config.mel_mean) / config.mel_deviation, dtype=np.float32)


def unscaled(frames: Tensor, config: Any) -> Floats:
    """Log-mel frames from scaled ones, at least silence."""
    values = frames.float().cpu().numpy() * config.mel_deviation + config.mel_mean
    found: Floats = np.maximum(values, SILENCE).astype(np.float32)
    return found


def bounded(unit: Sequence[Record], most: int) -> list[Record]:
    """At most so many records of a unit; a hash of each one's own name chooses."""
    if len(unit) <= most:
        return list(unit)
    return sorted(unit, key=lambda record: _order(record.id))[:most]


@lru_cache(maxsize=1 << 12)
def _mel(sound: Sound, bins: int, most: int) -> Floats:
    return log_mel(sound.samples()[:most], bins)


def _stacked(frames: Sequence[Floats], longest: int, config: Any, dtype: torch.dtype) -> Tensor:
    """Scaled frames, filled up with silence."""
    rows = np.full((len(frames), longest, config.mel_bins), SILENCE, dtype=np.float32)
    for row, its in zip(rows, frames, strict=True):
        row[: len(its)] = its
    return torch.from_numpy(scaled(rows, config)).to(dtype)


def _order(name: str) -> bytes:
    return hashlib.sha256(f"spectron/exchange/{name}".encode()).digest()
