"""The reference policy: the model that tuning must not stray too far from.

It is the base with its adapter off; or, when tuning goes on from an adapter that was made before,
a frozen copy of that adapter, because the base alone would be the wrong reference; or nobody in
particular, when records bring along how likely the reference found each reply. Source: Rafailov et
al. (2023), "Direct preference optimization", section 4: the reference is where tuning starts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wardround.client.layers import standing_in
from wardround.client.lora import AdapterConfig, without_adapter
from wardround.client.pinned import pinned_arrays, require_pin
from wardround.client.trainable import Trainable
from wardround.privacy.errors import BadInput, BadMessage


@dataclass(frozen=True)
class ReferenceSettings:
    """The ``[task.reference]`` table; empty for the base.

    Attributes:
        adapter: Folder of an adapter in PEFT's format: tuning starts from it, and a frozen copy of
            it is the reference.
        sha256: Of its ``adapter_model.safetensors``.
        recorded: Whether records say how likely the reference finds each of their replies, so that
            it need not be asked while training; ``wardround precompute`` writes such records.
    """

    adapter: str = ""
    sha256: str = ""
    recorded: bool = False

    def __post_init__(self) -> None:
        require_pin(self.adapter, self.sha256, "adapter")

    def arrays(self) -> Mapping[str, Tensor]:
        """The adapter's factors, by wire name; ``BadInput`` when they are not there."""
        return pinned_arrays(self.adapter, self.sha256)


def start_from(trainable: Trainable, adapter: AdapterConfig, settings: ReferenceSettings) -> None:
    """Give a fresh adapter the values of the reference, if that is one.

    Raises:
        BadInput: The two adapters differ in targets, rank or scaling, or the reference is not
            there. A different scaling would be a different policy from the same factors.
    """
    if not settings.adapter:
        return
    where = f"[task.reference] adapter {settings.adapter}"
    arrays = settings.arrays()
    try:
        trainable.write(arrays)
    except BadMessage as error:
        raise BadInput(f"{where} does not fit [adapter]: {error}") from error
    found, wanted = (
        _scaling(Path(settings.adapter), where),
        _scale(adapter.alpha, adapter.rank, adapter.use_rslora),
    )
    if not math.isclose(found, wanted, rel_tol=1e-9):
        raise BadInput(f"{where} is scaled by {found:g}; [adapter] says {wanted:g}")


@contextmanager
def as_reference(model: nn.Module, settings: ReferenceSettings) -> Iterator[None]:
    """Inside, the model answers as the reference does; no gradients are followed."""
    with torch.no_grad():
        if settings.adapter:
            with standing_in(model, settings.arrays()):
                yield
        else:
            with without_adapter(model):
                yield


def _scaling(folder: Path, where: str) -> float:
    """What an adapter in PEFT's format multiplies its product by."""
    try:
        config: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text("utf-8"))
        return _scale(float(config["lora_alpha"]), int(config["r"]), bool(config["use_rslora"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{where}: adapter_config.json says no alpha, rank and scaling") from error


def _scale(alpha: float, rank: int, by_root: bool) -> float:
    """LoRA's scaling, or rank-stabilised LoRA's."""
    return alpha / (math.sqrt(rank) if by_root else rank)
