"""Train the embedded base of speech again, from made-up voices and public questions alone.

``python -m wardround.client.bases.build_speech`` (or ``make bases``) makes ``client/bases/speech``:
a small FastConformer encoder, a small language model over letters, and the nets between frames and
states. Teacher-forced, with noise on the frames that are fed back, because a model that only ever
saw true frames loses its way on its own; questions are masked as in SpecAugment (Park et al. 2019).
Nothing is private.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from wardround.client.bases.making import byte_level_tokenizer, save_base
from wardround.client.tasks.base import Record
from wardround.client.tasks.draws import Draws
from wardround.client.tasks.spectron.config import SpectronTaskConfig
from wardround.client.tasks.spectron.evaluation import evaluate_speech
from wardround.client.tasks.spectron.generated import PUBLIC, in_voices
from wardround.client.tasks.spectron.model import Parts, SpectronConfig, SpectronModel
from wardround.client.tasks.spectron.rows import (
    collate_exchanges,
    model_rows,
    spectrogram,
)
from wardround.client.tasks.spectron.sequence import Weights, row_losses
from wardround.client.tasks.spectron.voices import draw_voice

VOCABULARY = 259  # every byte and the special tokens: letters, no words


@dataclass(frozen=True)
class SpeechRecipe:
    """How the base of speech is made; the defaults are the shipped one.

    Attributes:
        voices: Speakers, each asking every public question.
        most_processor_s: Training ends after so many seconds of processor time, if not before.
        fed_back_noise: Deviation of the noise on frames that are fed back.
        masked: Share of a question's bins and frames that SpecAugment takes away, at most.
    """

    name: str = "speech"
    bins: int = 40
    encoder_width: int = 64
    encoder_layers: int = 2
    width: int = 128
    layers: int = 3
    heads: int = 4
    voices: int = 48
    steps: int = 700
    batch: int = 24
    learning_rate: float = 2e-3
    warm_up_steps: int = 40
    most_processor_s: float = math.inf
    fed_back_noise: float = 0.3
    masked: float = 0.15
    seed: int = 0


def new_speech_model(
    recipe: SpeechRecipe, tokenizer: Any, scale: tuple[float, float], generator: torch.Generator
) -> SpectronModel:
    """An untrained model; matrices normal, norms one, by a public generator.

    Args:
        recipe: Sizes.
        tokenizer: For the vocabulary.
        scale: Mean and deviation of public log-mel values.
        generator: Draws first values.
    """
    config = SpectronConfig(
        encoder={
            "hidden_size": recipe.encoder_width, "num_hidden_layers": recipe.encoder_layers,
            "num_attention_heads": recipe.heads, "intermediate_size": 2 * recipe.encoder_width,
            "subsampling_factor": 8, "subsampling_conv_channels": 32, "num_mel_bins": recipe.bins,
            "dropout": 0.0, "layerdrop": 0.0, "activation_dropout": 0.0, "attention_dropout": 0.0,
        },
        decoder={
            "vocab_size": len(tokenizer), "hidden_size": recipe.width,
            "intermediate_size": 2 * recipe.width, "num_hidden_layers": recipe.layers,
            "num_attention_heads": recipe.heads, "num_key_value_heads": recipe.heads,
            "max_position_embeddings": 1024, "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
            "tie_word_embeddings": True,
        },
        mel_mean=scale[0],
        mel_deviation=scale[1],
    )  # fmt: skip
    # The library's own first values come from the global generator; the fork leaves that as it was.
    with torch.random.fork_rng(devices=[]):
        model = SpectronModel(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embed_tokens" in name:
                parameter.normal_(0.0, 0.05, generator=generator)
            elif parameter.dim() > 1:
                fan_in = parameter[0].numel()
                parameter.normal_(0.0, 1 / math.sqrt(fan_in), generator=generator)
            else:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
    return model


def train(
    recipe: SpeechRecipe,
    model: SpectronModel,
    tokenizer: Any,
    records: Sequence[Record],
    generator: torch.Generator,
    tell: Callable[[str], object],
) -> tuple[int, float]:
    """AdamW with warm-up and cosine decay; steps made and the mean loss of the last fifty.

    Args:
        recipe: Steps, rate, and the processor time there is.
        model: From ``new_speech_model``; trains in every part.
        tokenizer: Its tokenizer.
        records: Public exchanges.
        generator: Public; chooses, masks and makes noise.
        tell: Told now and then.
    """
    settings, weights, parts = SpectronTaskConfig(), Weights(), cast("Parts", model)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
    model.train()
    began, recent = time.process_time(), [0.0]
    step, done = 0, 0.0
    while done < 1.0:
        spent = (time.process_time() - began) / recipe.most_processor_s
        done = max(step / recipe.steps, spent)
        rate = recipe.learning_rate * min(1.0, (step + 1) / recipe.warm_up_steps)
        optimizer.param_groups[0]["lr"] = rate * (
            0.02 + 0.98 * math.cos(math.pi * min(1, done) / 2)
        )
        places = torch.randint(len(records), (recipe.batch,), generator=generator).tolist()
        batch = collate_exchanges([[records[place]] for place in places], tokenizer, settings)
        rows = _roughened(model_rows(parts, batch), recipe, generator)
        loss = row_losses(parts, rows, weights).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        recent = [*recent[-49:], float(loss.detach())]
        step += 1
        if step % 50 == 0:
            tell(f"step {step}, loss {sum(recent) / len(recent):.3f}, {done:.0%}")
    model.eval()
    return step, sum(recent) / len(recent)


def _roughened(
    rows: dict[str, Tensor], recipe: SpeechRecipe, generator: torch.Generator
) -> dict[str, Tensor]:
    """Rows whose questions miss a stripe each way, and whose fed-back frames are noisy."""
    question, answer = rows["question"].clone(), rows["answer"]
    for row, length in zip(question, rows["question_frames"].tolist(), strict=True):
        for size, axis in ((row.shape[1], 1), (length, 0)):
            width = int(torch.randint(int(size * recipe.masked) + 1, (1,), generator=generator))
            start = int(torch.randint(size - width + 1, (1,), generator=generator))
            row.narrow(axis, start, width).zero_()
    noise = recipe.fed_back_noise * torch.randn(answer.shape, generator=generator)
    return rows | {"question": question, "heard": answer + noise}


def public_scale(records: Sequence[Record], bins: int) -> tuple[float, float]:
    """Mean and deviation of log-mel values of public records."""

    class _Bins:
        mel_bins = bins

    frames = [spectrogram(record.content.question, _Bins, 60.0) for record in records]
    values = np.concatenate(frames)
    return round(float(values.mean()), 4), round(float(values.std()), 4)


def build(recipe: SpeechRecipe, bases: Path, tell: Callable[[str], None]) -> dict[str, Any]:
    """Make the base and put it into ``bases/<name>``; returns its manifest."""
    began = time.monotonic()
    generator = torch.Generator().manual_seed(recipe.seed)
    draws = Draws(recipe.seed, "spectron/base")
    records = in_voices(PUBLIC, [draw_voice(draws) for _ in range(recipe.voices)], "base")
    held_out = in_voices(PUBLIC, [draw_voice(draws) for _ in range(4)], "held-out")
    tokenizer = byte_level_tokenizer([], VOCABULARY)
    scale = public_scale(records, recipe.bins)
    model = new_speech_model(recipe, tokenizer, scale, generator)
    steps, loss = train(recipe, model, tokenizer, records, generator, tell)
    scores = evaluate_speech(cast("Parts", model), tokenizer, held_out, SpectronTaskConfig())
    facts = {
        "made_by": "python -m wardround.client.bases.build_speech",
        "voices": recipe.voices,
        "steps": steps,
        "loss": round(loss, 4),
        "held_out_wer": round(scores["wer"], 4),
        "held_out_answers": round(scores["answers"], 4),
        "held_out_spoken": round(scores["spoken"], 4),
        "seconds": round(time.monotonic() - began, 1),
    }
    return save_base(model, tokenizer, bases / recipe.name, facts)


def main() -> None:
    """Build the shipped base where it is shipped from."""

    def tell(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    tell(json.dumps(build(SpeechRecipe(), Path(__file__).parent, tell), indent=2))


if __name__ == "__main__":
    main()
