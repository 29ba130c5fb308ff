"""LoRA through PEFT: attach an adapter to a shared base, take it off again, write it to disk.

Wire names are PEFT's own state-dict keys without the adapter's name, so what a study ends with
loads with ``PeftModel.from_pretrained``. Source: Hu et al. (2021), "LoRA: low-rank adaptation of
large language models", section 4.1: h = Wx + (alpha / rank) B A x with B zero at the start; the
scaling alpha / sqrt(rank) is Kalajdzievski's (2023). Knows nothing of data or privacy.
"""

from __future__ import annotations

import json
import math
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wardround.client.layers import insert_cores, wire_name
from wardround.client.trainable import Trainable, check_arrays
from wardround.privacy.errors import BadInput, PolicyRefused
from wardround.privacy.tables import from_table, nearest
from wardround.strategies import factors

WIRE_PREFIX = "base_model.model."


@dataclass(frozen=True)
class AdapterConfig:
    """Which factors train, and how large they are.

    Attributes:
        targets: Linear modules by full path or by its end: ``mlp.down_proj`` means all layers.
        rank: Columns of B and rows of A.
        alpha: B A x is multiplied by alpha / rank.
        dropout: 0; anything else would draw from PyTorch's global generator.
        rank_pattern: Another rank for some targets, by path or by the end of it.
        use_rslora: Multiply by alpha / sqrt(rank) instead.
        core: Put a square matrix between the factors; set by strategies that train it.
    """

    targets: tuple[str, ...]
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    use_rslora: bool = False
    core: bool = False

    def __post_init__(self) -> None:
        if not self.targets or not all(self.targets):
            raise ValueError("targets is empty; name at least one linear module")
        if not 1 <= self.rank <= 4096:
            raise ValueError(f"rank is {self.rank}; it must be between 1 and 4096")
        if not (self.alpha > 0 and math.isfinite(self.alpha)):
            raise ValueError(f"alpha is {self.alpha}; it must be greater than 0")
        if self.dropout != 0:
            raise ValueError(f"dropout is {self.dropout}; it must be 0, noise regularises already")
        for path, rank in self.rank_pattern.items():
            if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank <= 4096:
                raise ValueError(f"rank_pattern of {path!r} is {rank!r}; expected 1 to 4096")

    def at_rank(self, rank: int) -> AdapterConfig:
        """The same adapter of another rank, multiplied by the same number as before.

        Raises:
            ValueError: Some targets have a rank of their own.
        """
        if self.rank_pattern:
            raise ValueError("rank_pattern cannot be combined with ranks of single hospitals")
        return replace(self, rank=rank, alpha=_alpha(self, self.rank, rank))

    @classmethod
    def from_table(cls, table: object, where: str = "[adapter]") -> AdapterConfig:
        """The configuration a table spells; ``BadInput`` names the field that does not fit."""
        return from_table(cls, table, where)


def attach_lora(model: nn.Module, config: AdapterConfig, generator: torch.Generator) -> Trainable:
    """Put LoRA factors into ``model``, until ``Trainable.detach``; everything else stays frozen.

    Args:
        model: A base without an adapter.
        config: What to attach.
        generator: Public; A is uniform in ``±1 / sqrt(in_features)``, B is zero.

    Raises:
        BadInput: A target or a key of ``rank_pattern`` matches no linear module.
    """
    from peft import get_peft_model

    if hasattr(model, "peft_config"):
        raise ValueError("the model already carries an adapter; detach it first")
    paths = find_linear(model, config.targets)
    settings = _peft_settings(config, {path: model.get_submodule(path) for path in paths})
    # PEFT fills the factors from PyTorch's global generator; the fork leaves that as it was. It
    # also asks transformers for a property that was renamed there, which is no news to our users.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        adapted = get_peft_model(model, settings)
        if config.core:
            insert_cores(adapted)
    parameters = {
        wire_name(name): parameter
        for name, parameter in adapted.named_parameters()
        if parameter.requires_grad
    }
    with torch.no_grad():
        for name, parameter in parameters.items():
            if ".lora_A." in name:
                bound = 1 / math.sqrt(parameter.shape[1])
                uniform = torch.rand(parameter.shape, generator=generator)
                parameter.copy_((2 * uniform - 1) * bound)
            else:
                parameter.zero_()
    adapted.eval()
    return Trainable(adapted, parameters, detach=adapted.unload)


def factor_groups(names: Iterable[str]) -> dict[str, str]:
    """Which of the two LoRA factors, ``A`` or ``B``, each parameter is; for mechanisms that care.

    Raises:
        PolicyRefused: A parameter is neither.
    """
    groups = {}
    for name in names:
        factor = next((f for f in "AB" if f".lora_{f}." in name), "")
        if not factor:
            raise PolicyRefused(f"{name} is no LoRA factor; DP-LoRA as published trains no others")
        groups[name] = factor
    return groups


@contextmanager
def without_adapter(model: nn.Module) -> Iterator[None]:
    """Inside, an adapted model answers as its base does; a model without an adapter, as always."""
    if not hasattr(model, "disable_adapter"):
        yield
        return
    switchable: Any = model
    with switchable.disable_adapter():
        yield


def save_adapter(
    trainable: Trainable,
    config: AdapterConfig,
    arrays: Mapping[str, Tensor],
    base_name: str,
    folder: Path,
    note: str,
) -> None:
    """Write an adapter in PEFT's format, whole or not at all.

    Args:
        trainable: What ``attach_lora`` made from ``config``; says which arrays belong, and no more.
        config: What the adapter was attached with.
        arrays: The values to write, by wire name; factors may have any rank.
        base_name: Name or folder of the base, for the reader and for PEFT.
        folder: Made, or replaced at the very end.
        note: What a reader of the model card must know first, such as the privacy cost.
    """
    from safetensors.torch import save_file

    ranks = _checked_ranks(trainable, arrays)
    adapted: Any = trainable.model
    layers = {
        name.removeprefix(WIRE_PREFIX): module.base_layer
        for name, module in adapted.named_modules()
        if name in ranks
    }
    settings = _peft_settings(config, layers, ranks).to_dict()
    settings |= {"base_model_name_or_path": base_name, "inference_mode": True}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        fresh = Path(scratch) / "adapter"
        fresh.mkdir()
        (fresh / "adapter_config.json").write_text(
            json.dumps(settings, indent=2, sort_keys=True, default=_plain) + "\n"
        )
        values = {name: value.detach().cpu().contiguous() for name, value in arrays.items()}
        save_file(values, fresh / "adapter_model.safetensors", metadata={"format": "pt"})
        (fresh / "README.md").write_text(_model_card(settings, base_name, note))
        if folder.exists():
            folder.rename(Path(scratch) / "replaced")
        fresh.rename(folder)


def _checked_ranks(trainable: Trainable, arrays: Mapping[str, Tensor]) -> dict[str, int]:
    """The rank that each layer's factors have, the arrays being otherwise those that train."""
    shapes, ranks = dict(trainable.shapes), {}
    for layer in factors.layers(arrays):
        a, b = layer + factors.A, layer + factors.B
        ranks[layer] = arrays[a].shape[0]
        if a in shapes and b in shapes:
            shapes[a] = torch.Size((ranks[layer], shapes[a][1]))
            shapes[b] = torch.Size((shapes[b][0], ranks[layer]))
    check_arrays(arrays, shapes)
    return ranks


def _peft_settings(
    config: AdapterConfig,
    modules: Mapping[str, nn.Module],
    widened: Mapping[str, int] | None = None,
) -> Any:
    """PEFT's own configuration for factors on exactly these modules, by full path."""
    from peft import LoraConfig

    ranks = _ranks(config.rank_pattern, modules)
    alphas = {}
    for wire, rank in (widened or {}).items():
        path = wire.removeprefix(WIRE_PREFIX)
        planned = ranks.get(path, config.rank)
        if rank != planned:
            ranks[path], alphas[path] = rank, _alpha(config, planned, rank)
    return LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        target_modules=list(modules),
        fan_in_fan_out=any(_is_transposed(module) for module in modules.values()),
        lora_dropout=config.dropout,
        rank_pattern=ranks,
        alpha_pattern=alphas,
        use_rslora=config.use_rslora,
        bias="none",
        task_type="CAUSAL_LM",
    )


def find_linear(model: nn.Module, targets: Iterable[str]) -> list[str]:
    """Full paths of the linear modules that ``targets`` name, in the model's order."""
    linear = {name for name, module in model.named_modules() if _is_linear(module)}
    wanted: set[str] = set()
    for target in targets:
        found = {name for name in linear if name == target or name.endswith("." + target)}
        if not found:
            ends = sorted({name.rsplit(".", 1)[-1] for name in linear})
            hint = nearest(target.rsplit(".", 1)[-1], ends)
            raise BadInput(f"[adapter] targets: {target!r} matches no linear module{hint}")
        wanted |= found
    return [name for name, _ in model.named_modules() if name in wanted]


def _ranks(pattern: Mapping[str, int], modules: Iterable[str]) -> dict[str, int]:
    """``rank_pattern`` by full path; a longer key outranks a shorter one."""
    ranks: dict[str, int] = {}
    for key in sorted(pattern, key=len):
        found = [name for name in modules if name == key or name.endswith("." + key)]
        if not found:
            raise BadInput(f"[adapter] rank_pattern: {key!r} matches none of the targets")
        ranks |= dict.fromkeys(found, pattern[key])
    return ranks


def _alpha(config: AdapterConfig, planned: int, rank: int) -> float:
    """The alpha with which factors of ``rank`` are scaled as those of the planned one."""
    share = rank / planned
    return config.alpha * (math.sqrt(share) if config.use_rslora else share)


def _is_linear(module: nn.Module) -> bool:
    """A layer LoRA can sit on."""
    return isinstance(module, nn.Linear) or _is_transposed(module)


def _is_transposed(module: nn.Module) -> bool:
    """The linear layer of GPT-2 in transformers, which keeps its weight transposed."""
    return type(module).__name__ == "Conv1D"


def _plain(value: object) -> Any:
    """What JSON can hold of a PEFT setting."""
    return sorted(value) if isinstance(value, set) else str(value)


def _model_card(settings: Mapping[str, Any], base_name: str, note: str) -> str:
    """The README that travels with an adapter."""
    targets = "\n".join(f"- `{name}`" for name in sorted(settings["target_modules"]))
    return (
        f"---\nbase_model: {base_name}\nlibrary_name: peft\ntags:\n- lora\n- wardround\n---\n\n"
        f"# LoRA adapter\n\n{note.strip()}\n\n"
        f"Base model: `{base_name}`. "
        f"Rank {settings['r']}, alpha {settings['lora_alpha']:g}, on:\n\n"
        f"{targets}\n\n"
        "```python\nfrom peft import PeftModel\n"
        "model = PeftModel.from_pretrained(base, folder)\n```\n"
    )
