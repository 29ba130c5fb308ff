"""One row's sequence and what each place of it predicts: text from speech, frames from text.

Question, text and frames of a row stand close together, whatever the other rows' lengths are;
padding is at the right end and masked. Token ``j`` is predicted at the place of token ``j - 1``,
the first step of frames at the place of the last token, each further step at the one before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from wardround.client.tasks.spectron.model import Parts, encode_speech
from wardround.client.tasks.spectron.reconstruction import reconstruction_loss


@dataclass(frozen=True)
class Weights:
    """How the three parts of a row's loss are added up.

    Attributes:
        text: Of the mean cross-entropy of transcript and answer.
        speech: Of the mean reconstruction loss.
        stop: Of the end of speech.
        lags: Lags of the differences in time.
    """

    text: float = 1.0
    speech: float = 0.1
    stop: float = 0.1
    lags: int = 3

    def __post_init__(self) -> None:
        for name in ("text", "speech", "stop"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        if not 1 <= self.lags <= 64:
            raise ValueError(f"lags is {self.lags}; it must be 1 to 64")


@dataclass(frozen=True)
class Predicted:
    """What a teacher-forced pass says.

    Attributes:
        logits: Of each token from those before it, shape ``(rows, tokens - 1, vocabulary)``.
        frames: Scaled frames, shape ``(rows, steps * frames per step, bins)``.
        stops: Logits of the last step, shape ``(rows, steps)``.
    """

    logits: Tensor
    frames: Tensor
    stops: Tensor


def run(parts: Parts, inputs: Mapping[str, Tensor]) -> Predicted:
    """One teacher-forced pass.

    Args:
        parts: The model.
        inputs: ``question`` ``(rows, frames, bins)`` and ``question_frames``; ``ids`` ``(rows,
            tokens)`` and ``tokens``; ``answer`` ``(rows, steps * frames per step, bins)`` and
            ``steps``; optionally ``heard``, the frames that are fed back in place of ``answer``.
    """
    states, heard = encode_speech(parts, inputs["question"], inputs["question_frames"])
    text = token_table(parts)(inputs["ids"])
    fed = inputs.get("heard", inputs["answer"])
    frames = parts.pre_net(as_steps(fed, parts.config.frames_per_step))
    lengths = (heard, inputs["tokens"], inputs["steps"])
    packed, mask, place = _packed((states.to(text), text, frames.to(text)), lengths)
    hidden = decoder_of(parts)(
        inputs_embeds=packed, attention_mask=mask, use_cache=False
    ).last_hidden_state
    row = torch.arange(len(packed), device=packed.device).unsqueeze(1)
    offset = states.shape[1]
    at_text = hidden[row, place[:, offset : offset + text.shape[1]]]
    last = offset + inputs["tokens"].unsqueeze(1) - 1
    steps = torch.arange(frames.shape[1], device=packed.device).unsqueeze(0)
    before = torch.where(steps == 0, last, offset + text.shape[1] + steps - 1)
    at_frames = hidden[row, place.gather(1, before)]
    said = parts.post_net(at_frames)
    bins = inputs["answer"].shape[2]
    return Predicted(
        text_head(parts)(at_text[:, :-1]),
        said.reshape(len(said), -1, bins),
        parts.stop(at_frames).squeeze(-1),
    )


def row_losses(parts: Parts, inputs: Mapping[str, Tensor], weights: Weights) -> Tensor:
    """One loss a row, each a mean over that row's own tokens, frames and steps."""
    found = run(parts, inputs)
    ids, tokens, steps = inputs["ids"], inputs["tokens"], inputs["steps"]
    counts = torch.arange(1, ids.shape[1], device=ids.device) < tokens.unsqueeze(1)
    cross = functional.cross_entropy(found.logits.mT, ids[:, 1:], reduction="none")
    text = (cross * counts).sum(1) / (tokens - 1)
    frames = inputs["answer_frames"]
    speech = reconstruction_loss(found.frames, inputs["answer"], frames, weights.lags)
    speech = speech / (frames * inputs["answer"].shape[2])
    place = torch.arange(found.stops.shape[1], device=ids.device)
    ends = (place == (steps - 1).unsqueeze(1)).to(found.stops)
    stop = functional.binary_cross_entropy_with_logits(found.stops, ends, reduction="none")
    stop = (stop * (place < steps.unsqueeze(1))).sum(1) / steps
    return weights.text * text + weights.speech * speech + weights.stop * stop


def as_steps(frames: Tensor, frames_per_step: int) -> Tensor:
    """Frames side by side, shape ``(rows, steps, frames_per_step * bins)``."""
    return frames.reshape(len(frames), -1, frames_per_step * frames.shape[2])


def _packed(
    parts: tuple[Tensor, ...], lengths: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """Each row's valid places close together, the mask, and where each place has gone."""
    device = parts[0].device
    valid = torch.cat(
        [
            torch.arange(part.shape[1], device=device) < length.unsqueeze(1)
            for part, length in zip(parts, lengths, strict=True)
        ],
        dim=1,
    )
    order = (~valid).to(torch.int8).argsort(dim=1, stable=True)
    whole = torch.cat(parts, dim=1)
    packed = whole.gather(1, order.unsqueeze(2).expand_as(whole))
    longest = int(valid.sum(1).max())
    mask = valid.gather(1, order)[:, :longest].long()
    # Padding has gone beyond the end; whoever asks for it gets some state and must not count it.
    return packed[:, :longest], mask, order.argsort(dim=1).clamp(max=longest - 1)


def _causal(parts: Parts) -> Any:
    """The language model, without what an adapter wraps around it."""
    decoder: Any = parts.decoder
    return decoder.get_base_model() if hasattr(decoder, "get_base_model") else decoder


def token_table(parts: Parts) -> Any:
    """The table of tokens."""
    return _causal(parts).get_input_embeddings()


def decoder_of(parts: Parts) -> Any:
    """The blocks, whose states are predicted from."""
    return _causal(parts).model


def text_head(parts: Parts) -> Any:
    """What makes logits of a state."""
    return _causal(parts).lm_head
