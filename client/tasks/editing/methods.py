"""The ways of editing behind one face: what trains, how to switch it off, how it is written down.

``lora``: factors on frozen layers. ``medlasa``: the same with traced scales a row. ``ft``: the
targeted layers themselves. ``memit`` solves instead of training and lives in ``memit``. Knows
models and adapters; nothing of records or privacy.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wardround.client.lora import AdapterConfig, attach_lora, save_adapter, without_adapter
from wardround.client.tasks.editing.deltas import attach_deltas, save_deltas, without_deltas
from wardround.client.tasks.editing.records import Edit
from wardround.client.tasks.editing.router import Router, RouterKind
from wardround.client.tasks.editing.row_scales import RowScales, attach_scaled_lora, scales_of
from wardround.client.tasks.editing.scales import ScaleConfig
from wardround.client.tasks.editing.tracing import TraceConfig
from wardround.client.trainable import Trainable
from wardround.privacy.errors import BadInput
from wardround.privacy.tables import from_table

SCALES_FILE = "wardround_scales.json"


class Method(StrEnum):
    """How a model is edited."""

    LORA = "lora"
    MEDLASA = "medlasa"
    FT = "ft"
    MEMIT = "memit"


def attach(
    model: nn.Module,
    method: Method,
    config: AdapterConfig,
    how: TraceConfig,
    scale: ScaleConfig,
    generator: torch.Generator,
) -> Trainable:
    """What ``method`` changes about a frozen base, at its starting values."""
    if method is Method.LORA:
        return attach_lora(model, config, generator)
    if method is Method.MEDLASA:
        return attach_scaled_lora(model, config, how, scale, generator)
    return attach_deltas(model, config)


@contextmanager
def without_edits(model: nn.Module) -> Iterator[None]:
    """Inside, an edited model answers as its base does, whatever the edits are made of."""
    with without_adapter(model), without_deltas(model):
        yield


def query_scales(
    kind: RouterKind, model: nn.Module, tokenizer: Any, public: Iterable[Edit]
) -> Callable[[Sequence[str]], AbstractContextManager[None]]:
    """What to enter around a forward pass over questions, given their prompts."""
    scales = scales_of(model)
    if scales is None:
        return lambda prompts: nullcontext()
    return Router(kind, model, tokenizer, scales, public).during


def save(
    trainable: Trainable,
    config: AdapterConfig,
    arrays: Mapping[str, Tensor],
    base: str,
    folder: Path,
    note: str,
) -> None:
    """Write an edit in PEFT's format; with traced scales, how to find them again as well.

    PEFT alone loads a scaled adapter with every factor at one, which is what the router ``none``
    does. No prompt and no scale set is written.
    """
    scales = scales_of(trainable.model)
    if scales is not None:
        note += (
            f"\n\nThis adapter was trained with scales that differ from prompt to prompt. PEFT "
            f"alone applies it at full strength to every prompt; `{SCALES_FILE}` says how "
            f"Wardround finds a prompt's own scales."
        )
    if any(name.endswith(".delta.weight") for name in arrays):
        save_deltas(trainable, arrays, base, folder, note)
    else:
        save_adapter(trainable, config, arrays, base, folder, note)
    if scales is not None:
        how = asdict(scales.trace_config) | {"sigma": scales.sigma}
        document = {"trace": how, "scale": asdict(scales.scale_config)}
        (folder / SCALES_FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def load_scaled(model: nn.Module, folder: Path) -> tuple[Trainable, RowScales]:
    """An exported adapter on its base, with scales that can be found for any prompt.

    Raises:
        BadInput: The folder holds no adapter with scales, or one that cannot be used.
    """
    from safetensors.torch import load_file

    try:
        settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        scales = json.loads((folder / SCALES_FILE).read_text(encoding="utf-8"))
        arrays = load_file(folder / "adapter_model.safetensors")
    except (OSError, ValueError) as error:
        raise BadInput(f"{folder}: not an adapter with scales ({error})") from error
    config = AdapterConfig(
        tuple(settings["target_modules"]),
        settings["r"],
        settings["lora_alpha"],
        rank_pattern=settings["rank_pattern"],
        use_rslora=settings["use_rslora"],
    )
    trainable = attach_scaled_lora(
        model,
        config,
        from_table(TraceConfig, scales.get("trace"), f"{folder / SCALES_FILE} trace"),
        from_table(ScaleConfig, scales.get("scale"), f"{folder / SCALES_FILE} scale"),
        torch.Generator().manual_seed(0),
    )
    trainable.write(arrays)
    found = scales_of(trainable.model)
    assert found is not None
    return trainable, found
