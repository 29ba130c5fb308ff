"""Listens and answers: words that were heard, answers that were given, in text and in speech.

A spoken answer counts as right when its spectrogram is nearest to the right one of all answers that
the same speaker gives among the records. Privacy: exact figures about the records given; they stay
where the records are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from wardround.client.tasks.base import Metrics, Record
from wardround.client.tasks.spectron.config import SpectronTaskConfig
from wardround.client.tasks.spectron.generation import answer
from wardround.client.tasks.spectron.mel import Floats
from wardround.client.tasks.spectron.metrics import (
    answers_match,
    voice_likeness,
    word_error_rate,
)
from wardround.client.tasks.spectron.model import Parts
from wardround.client.tasks.spectron.records import Exchange
from wardround.client.tasks.spectron.rows import (
    SEPARATOR,
    collate_exchanges,
    model_rows,
    scaled,
    spectrogram,
    unscaled,
)
from wardround.client.tasks.spectron.sequence import run
from wardround.privacy import Unit

_COMPARED = 16  # an answer's spectrogram is squeezed to so many frames before it is compared


@dataclass(frozen=True)
class Heard:
    """What a model made of one record.

    Attributes:
        record: The record.
        transcript: What it says it heard.
        answer: What it says in text.
        frames: Log-mel frames of what it says aloud.
    """

    record: Record
    transcript: str
    answer: str
    frames: Floats


def listen(
    parts: Parts, tokenizer: Any, records: Sequence[Record], config: SpectronTaskConfig
) -> list[Heard]:
    """The model's own answers to every record's question, free-running."""
    found = []
    device = next(parts.stop.parameters()).device
    dtype = next(parts.stop.parameters()).dtype
    for record in records:
        mel = spectrogram(record.content.question, parts.config, config.max_question_s)
        question = torch.from_numpy(scaled(mel, parts.config)).to(device, dtype)
        said = answer(parts, question, tokenizer, config.limits)
        text = tokenizer.decode(list(said.ids), skip_special_tokens=True)
        transcript, _, told = text.partition(SEPARATOR)
        found.append(Heard(record, transcript, told, unscaled(said.frames, parts.config)))
    return found


def evaluate_speech(
    parts: Parts, tokenizer: Any, records: Sequence[Record], config: SpectronTaskConfig
) -> Metrics:
    """Scores of the model's own answers.

    Returns:
        ``wer`` of the transcripts, ``answers`` that occur in the text, ``spoken`` answers nearest
        to the right ones, ``voice_likeness`` (a stand-in, see ``metrics``), and
        ``log_perplexity`` of the true texts under the model's own decoder.
    """
    heard = listen(parts, tokenizer, records, config)
    return score(parts, tokenizer, heard, config)


def score(
    parts: Parts, tokenizer: Any, heard: Sequence[Heard], config: SpectronTaskConfig
) -> Metrics:
    """Scores of what was heard and said."""
    exchanges: list[Exchange] = [one.record.content for one in heard]
    true = [spectrogram(e.answer, parts.config, config.max_answer_s) for e in exchanges]
    wanted = [e.answer_text for e in exchanges]
    speakers = [one.record.owners[Unit.SPEAKER] for one in heard]
    right = 0
    for place, one in enumerate(heard):
        same = [n for n, speaker in enumerate(speakers) if speaker == speakers[place]]
        shapes = [_squeezed(true[n]) for n in same]
        mine = _squeezed(one.frames)
        nearest = min(range(len(same)), key=lambda n: float(np.abs(shapes[n] - mine).mean()))
        right += wanted[same[nearest]] == wanted[place]
    count = len(heard)
    match = sum(answers_match(w, one.answer) for w, one in zip(wanted, heard, strict=True))
    return {
        "exchanges": float(count),
        "wer": word_error_rate([e.question_text for e in exchanges], [h.transcript for h in heard]),
        "answers": match / count,
        "spoken": right / count,
        "voice_likeness": sum(
            voice_likeness(spectrogram(e.question, parts.config, config.max_question_s), h.frames)
            for e, h in zip(exchanges, heard, strict=True)
        )
        / count,
        "log_perplexity": text_perplexity(parts, tokenizer, [h.record for h in heard], config),
    }


@torch.no_grad()
def text_perplexity(
    parts: Parts, tokenizer: Any, records: Sequence[Record], config: SpectronTaskConfig
) -> float:
    """Mean negative log-likelihood of a token of the true texts, teacher-forced."""
    total, tokens = 0.0, 0
    for record in records:
        batch = collate_exchanges([[record]], tokenizer, config)
        device = next(parts.stop.parameters()).device
        rows = {name: value.to(device) for name, value in model_rows(parts, batch).items()}
        logits = run(parts, rows).logits[0].log_softmax(-1)
        targets = rows["ids"][0, 1:]
        total -= float(logits.gather(1, targets.unsqueeze(1)).sum())
        tokens += len(targets)
    return total / tokens if tokens else math.nan


def _squeezed(frames: Floats) -> Floats:
    """A spectrogram stretched or squeezed to one number of frames."""
    places = np.linspace(0, len(frames) - 1, _COMPARED).round().astype(int)
    squeezed: Floats = frames[places]
    return squeezed
