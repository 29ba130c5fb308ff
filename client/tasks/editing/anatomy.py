"""The parts of a decoder by name: its blocks, and the attention and the MLP inside each.

Works on any causal model of transformers whose blocks stand in one list and call their parts by one
of the usual names (Llama, Qwen2, Mistral, Gemma, GPT-2 and their kin); others are refused by name.
Knows module trees; runs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from torch import nn

from wardround.privacy.errors import BadInput

ATTENTION_NAMES = ("self_attn", "attn", "attention", "self_attention")
MLP_NAMES = ("mlp", "feed_forward", "ffn")


class Kind(StrEnum):
    """A part of a block that writes into the residual stream."""

    MLP = "mlp"
    ATTENTION = "attention"


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A decoder and where its parts are.

    Attributes:
        model: What is called with token ids.
        path: Of the list of blocks, such as ``model.layers``.
        blocks: The blocks, first to last.
        names: What each kind of part is called inside a block.
    """

    model: nn.Module
    path: str
    blocks: tuple[nn.Module, ...]
    names: dict[Kind, str]

    def part(self, kind: Kind, layer: int) -> nn.Module:
        """A block's attention or MLP."""
        return self.blocks[layer].get_submodule(self.names[kind])

    def place(self, path: str) -> tuple[Kind, int] | None:
        """The kind of part and the layer that a module's path lies in; ``None`` outside both."""
        head, found, rest = path.partition(f"{self.path}.")
        if not found or (head and not head.endswith(".")):
            return None
        number, _, inside = rest.partition(".")
        for kind, name in self.names.items():
            if inside == name or inside.startswith(f"{name}."):
                return kind, int(number)
        return None


def find_anatomy(model: nn.Module) -> Anatomy:
    """The blocks of a causal model, with or without a PEFT adapter around it.

    Raises:
        BadInput: No list of modules in it looks like a decoder's blocks.
    """
    adapted: Any = model
    inner: nn.Module = adapted.get_base_model() if hasattr(model, "get_base_model") else model
    best: Anatomy | None = None
    for path, module in inner.named_modules():
        if not isinstance(module, nn.ModuleList) or not len(module):
            continue
        names = _names(module)
        if names is not None and (best is None or len(module) > len(best.blocks)):
            best = Anatomy(inner, path, tuple(module), names)
    if best is None:
        raise BadInput(
            f"base {type(inner).__name__}: no list of decoder blocks with an attention called one "
            f"of {', '.join(ATTENTION_NAMES)} and an MLP called one of {', '.join(MLP_NAMES)}"
        )
    return best


def _names(blocks: nn.ModuleList) -> dict[Kind, str] | None:
    """What the parts are called, if every block has both under the same names."""
    found: dict[Kind, str] = {}
    for kind, names in ((Kind.MLP, MLP_NAMES), (Kind.ATTENTION, ATTENTION_NAMES)):
        for name in names:
            if all(isinstance(getattr(block, name, None), nn.Module) for block in blocks):
                found[kind] = name
                break
    return found if len(found) == len(Kind) else None
