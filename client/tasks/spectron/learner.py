"""What trains: LoRA in the language model, and copies of the light nets around it in full.

The encoder and the base stay as they are; a base is shared, so the nets that train are copies.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wardround.client.lora import AdapterConfig, attach_lora
from wardround.client.statistics import save_numbers
from wardround.client.tasks.spectron.model import SpectronModel
from wardround.client.trainable import Trainable
from wardround.privacy.errors import BadInput

NETS = ("projection", "pre_net", "post_net", "stop")


class SpeechLearner(nn.Module):
    """A base's encoder, its adapted language model, and nets that train."""

    decoder: nn.Module

    def __init__(self, base: SpectronModel, decoder: nn.Module) -> None:
        super().__init__()
        self.config = base.config
        self.encoder = base.encoder
        self.decoder = decoder
        self.projection, self.pre_net, self.post_net, self.stop = (
            copy.deepcopy(getattr(base, name)).requires_grad_(True) for name in NETS
        )


def attach(model: nn.Module, adapter: Mapping[str, Any], generator: torch.Generator) -> Trainable:
    """LoRA in the decoder and the nets beside it.

    Args:
        model: A ``SpectronModel``.
        adapter: LoRA settings; targets are modules of the decoder.
        generator: Public; draws first values.

    Raises:
        BadInput: The base is of another kind, or a target matches nothing.
    """
    if not isinstance(model, SpectronModel):
        raise BadInput(
            f"[model] base: the task needs one of kind {SpectronModel.config_class.model_type!r}; "
            f"this is {type(model).__name__}"
        )
    lora = attach_lora(model.decoder, AdapterConfig.from_table(adapter), generator)
    learner = SpeechLearner(model, lora.model)
    nets = {
        f"{name}.{part}": parameter
        for name in NETS
        for part, parameter in getattr(learner, name).named_parameters()
    }

    def detach() -> nn.Module:
        lora.detach()
        return model

    return Trainable(learner, {**lora.parameters, **nets}, detach)


def save(
    trainable: Trainable,
    adapter: Mapping[str, Any],
    arrays: Mapping[str, Tensor],
    base: str,
    folder: Path,
    note: str,
) -> None:
    """Write all that trained as safetensors, with the adapter's settings beside it."""
    title = f"Spoken answers, on top of `{base}`"
    save_numbers(arrays, folder, title, note, {"base": base, "adapter": dict(adapter)})
