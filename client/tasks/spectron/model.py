"""The base: a speech encoder, a language model, and light nets between frames and its states.

One sequence a row: encoded question, its transcript and the answer as text, the answer's frames.
``SpectronModel`` is a transformers model, so a base is a folder of safetensors like any other.
Several frames are one step of the sequence, which the paper does not do. Source: Nachmani et al.
(2024), Spectron, section 3.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    ParakeetEncoder,
    ParakeetEncoderConfig,
    PretrainedConfig,
    PreTrainedModel,
)


class Parts(Protocol):
    """What a row goes through; the base has all of it, and so has what trains on it."""

    encoder: nn.Module
    projection: nn.Module
    decoder: nn.Module
    pre_net: nn.Module
    post_net: nn.Module
    stop: nn.Module
    config: Any


class SpectronConfig(PretrainedConfig):  # type: ignore[misc]
    """Sizes of all parts, and the public numbers that frames are brought to scale with.

    Args:
        encoder: Settings of a ``ParakeetEncoder``; ``num_mel_bins`` is that of the spectrograms.
        decoder: Settings of a ``LlamaForCausalLM``.
        frames_per_step: Frames that are one place of the sequence.
        bottleneck: Narrowest layer of the pre-net.
        post_width: Hidden layer of the post-net.
        mel_mean: Mean of public log-mel values.
        mel_deviation: Their standard deviation.
    """

    model_type = "spectron"

    def __init__(
        self,
        encoder: dict[str, Any] | None = None,
        decoder: dict[str, Any] | None = None,
        frames_per_step: int = 4,
        bottleneck: int = 32,
        post_width: int = 128,
        mel_mean: float = -6.0,
        mel_deviation: float = 3.0,
        **others: Any,
    ) -> None:
        self.encoder = encoder or {}
        self.decoder = decoder or {}
        self.frames_per_step = frames_per_step
        self.bottleneck = bottleneck
        self.post_width = post_width
        self.mel_mean = mel_mean
        self.mel_deviation = mel_deviation
        super().__init__(**others)

    @property
    def mel_bins(self) -> int:
        """Bins of a spectrogram."""
        return int(self.encoder.get("num_mel_bins", 80))


class SpectronModel(PreTrainedModel):  # type: ignore[misc]
    """Encoder, projection, decoder, pre-net, post-net and stop head."""

    config_class = SpectronConfig
    base_model_prefix = "spectron"

    def __init__(self, config: SpectronConfig) -> None:
        super().__init__(config)
        encoder, decoder = ParakeetEncoderConfig(**config.encoder), LlamaConfig(**config.decoder)
        self.encoder = ParakeetEncoder(encoder)
        self.decoder = LlamaForCausalLM(decoder)
        width, step = decoder.hidden_size, config.frames_per_step * config.mel_bins
        self.projection = nn.Linear(encoder.hidden_size, width)
        self.pre_net = nn.Sequential(
            nn.Linear(step, config.bottleneck), nn.ReLU(), nn.Linear(config.bottleneck, width)
        )
        self.post_net = nn.Sequential(
            nn.Linear(width, config.post_width), nn.ReLU(), nn.Linear(config.post_width, step)
        )
        self.stop = nn.Linear(width, 1)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The decoder's table of tokens."""
        found: nn.Module = self.decoder.get_input_embeddings()
        return found

    def forward(self, **inputs: Tensor) -> Any:
        """Not how this model is used; see ``sequence.run``."""
        from wardround.client.tasks.spectron.sequence import run

        return run(self, inputs)


def encode_speech(parts: Parts, mel: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Projected states of spectrograms, and how many of each row count.

    The encoder is frozen; rows are padded on the right and masked, so no row sees another.

    Args:
        parts: The model.
        mel: Scaled frames, shape ``(rows, longest, bins)``.
        frames: How many of each row's frames count.
    """
    mask = (torch.arange(mel.shape[1], device=mel.device) < frames.unsqueeze(1)).long()
    with torch.set_grad_enabled(any(p.requires_grad for p in parts.encoder.parameters())):
        # The encoder's first convolution looks one frame beyond an odd number of them; it must see
        # nothing there, whatever the padding holds.
        silent = mel * mask.unsqueeze(2)
        found = parts.encoder(silent, attention_mask=mask, output_attention_mask=True)
    lengths: Tensor = found.attention_mask.sum(1)
    return parts.projection(found.last_hidden_state), lengths


AutoConfig.register(SpectronConfig.model_type, SpectronConfig, exist_ok=True)
AutoModelForCausalLM.register(SpectronConfig, SpectronModel, exist_ok=True)
