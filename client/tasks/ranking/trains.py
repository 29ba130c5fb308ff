"""What trains in a ranking study: LoRA factors, or the last blocks of the model, and a head.

Training whole last blocks is the paper's own way against forgetting; embeddings, earlier blocks and
the language-model head stay frozen. Source: Zhang et al. (2024), TSARankLLM, section 3.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wardround.client.lora import AdapterConfig, attach_lora, save_adapter, without_adapter
from wardround.client.tasks.ranking.head import HEAD_WEIGHT, HeadRanker
from wardround.client.trainable import Trainable, check_arrays
from wardround.privacy.errors import BadInput
from wardround.privacy.tables import from_table

LAST_BLOCKS = "last_blocks"


@dataclass(frozen=True)
class LastBlocks:
    """The ``[adapter]`` table of a study that trains whole blocks.

    Attributes:
        last_blocks: How many of the last transformer blocks train.
    """

    last_blocks: int

    def __post_init__(self) -> None:
        if self.last_blocks < 1:
            raise ValueError(f"last_blocks is {self.last_blocks}; it must be 1 or more")


def attach(
    model: nn.Module, adapter: Mapping[str, Any], head: bool, generator: torch.Generator
) -> Trainable:
    """Choose what trains: LoRA, or the last blocks where ``[adapter]`` says so; and a head."""
    if LAST_BLOCKS in adapter:
        trainable = _thaw(model, from_table(LastBlocks, adapter, "[adapter]").last_blocks)
    else:
        trainable = attach_lora(model, AdapterConfig.from_table(adapter), generator)
    if not head:
        return trainable
    ranker = HeadRanker(trainable.model, generator)
    parameters = dict(trainable.parameters) | {HEAD_WEIGHT: ranker.head.get_parameter("weight")}
    return Trainable(ranker, parameters, trainable.detach)


@contextmanager
def as_reference(model: nn.Module) -> Iterator[None]:
    """Inside, a model with trained LoRA factors or blocks answers as its frozen base does."""
    kept: Mapping[str, Tensor] = getattr(model, _KEPT, {})
    with without_adapter(model) if not kept else nullcontext():
        now = {name: model.get_parameter(name).data for name in kept}
        try:
            for name, value in kept.items():
                model.get_parameter(name).data = value
            yield
        finally:
            for name, value in now.items():
                model.get_parameter(name).data = value


def export(
    trainable: Trainable,
    adapter: Mapping[str, Any],
    arrays: Mapping[str, Tensor],
    base: str,
    folder: Path,
    note: str,
) -> None:
    """Write LoRA factors in PEFT's format; blocks and a head as plain safetensors beside them."""
    if LAST_BLOCKS in adapter:
        check_arrays(arrays, trainable.shapes)
        _save(folder, "blocks.safetensors", arrays, base, note)
        return
    own = {name: value for name, value in arrays.items() if name != HEAD_WEIGHT}
    lora = trainable
    if len(own) < len(arrays):
        kept = {name: p for name, p in trainable.parameters.items() if name != HEAD_WEIGHT}
        inner: Any = trainable.model
        lora = replace(trainable, model=inner.model, parameters=kept)
    save_adapter(lora, AdapterConfig.from_table(adapter), own, base, folder, note)
    if len(own) < len(arrays):
        from safetensors.torch import save_file

        save_file({HEAD_WEIGHT: arrays[HEAD_WEIGHT].contiguous()}, folder / "head.safetensors")


_KEPT = "_wardround_reference"


def _thaw(model: nn.Module, count: int) -> Trainable:
    """The last blocks of a frozen base as what trains; ``detach`` gives them their values back."""
    path, blocks = _blocks(model)
    if count > len(blocks):
        raise BadInput(f"[adapter] last_blocks is {count}; the base has {len(blocks)} blocks")
    names = {
        f"{path}.{number}.{name}": parameter
        for number in range(len(blocks) - count, len(blocks))
        for name, parameter in blocks[number].named_parameters()
    }
    kept = {name: parameter.detach().clone() for name, parameter in names.items()}
    for parameter in names.values():
        parameter.requires_grad_(True)
    setattr(model, _KEPT, kept)
    return Trainable(model, names, _freezer(model, names, kept))


def _freezer(
    model: nn.Module, names: Mapping[str, nn.Parameter], kept: Mapping[str, Tensor]
) -> Callable[[], nn.Module]:
    """Puts a base back as it was."""

    @torch.no_grad()
    def freeze() -> nn.Module:
        for name, parameter in names.items():
            parameter.copy_(kept[name])
            parameter.grad = None
            parameter.requires_grad_(False)
        delattr(model, _KEPT)
        return model

    return freeze


def _blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The list of transformer blocks: the one that holds most parameters."""
    parts = model.named_modules()
    lists = [(name, part) for name, part in parts if isinstance(part, nn.ModuleList)]
    if not lists:
        raise BadInput("[adapter] last_blocks: the base has no list of blocks; use LoRA targets")
    return max(lists, key=lambda found: sum(p.numel() for p in found[1].parameters()))


def _save(folder: Path, file: str, arrays: Mapping[str, Tensor], base: str, note: str) -> None:
    """One safetensors file with a card."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    values = {name: value.detach().cpu().contiguous() for name, value in arrays.items()}
    save_file(values, folder / file, metadata={"format": "pt"})
    (folder / "README.md").write_text(
        f"---\nbase_model: {base}\ntags:\n- wardround\n---\n\n# Trained blocks\n\n"
        f"{note.strip()}\n\n"
        f"`{file}` holds the blocks that trained, under the names of `{base}`'s own parameters:\n"
        "`model.load_state_dict(safetensors.torch.load_file(file), strict=False)`.\n",
        encoding="utf-8",
    )
