"""LoRA factors among named arrays: which belong together, and what a lower rank holds of them.

A layer ``P`` of shape (m, n) has ``P.lora_A.weight``, (rank, n), and ``P.lora_B.weight``,
(m, rank), in PEFT's names; what it adds to the frozen weight is scaling · B·A. A background is a
second, frozen product of the same layer, ``P.background_A.weight`` and ``P.background_B.weight``,
with the same scaling. Knows nothing of how anything is averaged.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from wardround.privacy.errors import BadInput
from wardround.strategies.base import SERVER, Arrays
from wardround.strategies.low_rank import Product, stack

A = ".lora_A.weight"
B = ".lora_B.weight"
CORE = ".lora_R.weight"
BACKGROUND_A = ".background_A.weight"
BACKGROUND_B = ".background_B.weight"


def layers(arrays: Arrays) -> tuple[str, ...]:
    """Layers that have both factors, in the arrays' order."""
    found = (name.removesuffix(A) for name in arrays if name.endswith(A))
    return tuple(layer for layer in found if layer + B in arrays)


def require_layers(arrays: Arrays, strategy: str) -> tuple[str, ...]:
    """The layers, of which there must be one.

    Raises:
        BadInput: The task trains no LoRA factors.
    """
    found = layers(arrays)
    if not found:
        raise BadInput(f"[strategy] name is {strategy!r}, which needs LoRA; this task trains none")
    return found


def named(arrays: Arrays, ending: str) -> tuple[str, ...]:
    """Names with this ending."""
    return tuple(name for name in arrays if name.endswith(ending))


def others(arrays: Arrays) -> tuple[str, ...]:
    """Names of arrays that are no part of a layer; strategies average them as they are."""
    endings = (A, B, CORE, BACKGROUND_A, BACKGROUND_B)
    return tuple(name for name in arrays if not name.endswith(endings))


def adapter(state: Arrays) -> dict[str, Tensor]:
    """The part of a state that is an adapter: no background and nothing of the server's own."""
    return without_background({n: a for n, a in state.items() if not n.startswith(SERVER)})


def without_background(arrays: Arrays) -> dict[str, Tensor]:
    """The arrays that are no background."""
    return {n: a for n, a in arrays.items() if not n.endswith((BACKGROUND_A, BACKGROUND_B))}


def backgrounds(state: Arrays) -> dict[str, Tensor]:
    """The part of a state that is background."""
    return {n: a for n, a in state.items() if n.endswith((BACKGROUND_A, BACKGROUND_B))}


def product(arrays: Arrays, layer: str) -> Product:
    """A layer's B·A."""
    return Product(arrays[layer + B], arrays[layer + A])


def background(arrays: Arrays, layer: str) -> Product | None:
    """A layer's background, if it has one."""
    if layer + BACKGROUND_A not in arrays:
        return None
    return Product(arrays[layer + BACKGROUND_B], arrays[layer + BACKGROUND_A])


def write_product(layer: str, product: Product) -> dict[str, Tensor]:
    """The two arrays of a layer whose B·A is ``product``."""
    return {layer + A: _plain(product.right), layer + B: _plain(product.left)}


def write_background(layer: str, product: Product) -> dict[str, Tensor]:
    """The two arrays of a layer's background; none for a product of rank 0."""
    if not product.rank:
        return {}
    return {
        layer + BACKGROUND_A: _plain(product.right),
        layer + BACKGROUND_B: _plain(product.left),
    }


def orthonormal_rows(array: Tensor) -> Tensor:
    """Orthonormal rows that span what the rows of ``array`` span.

    Raises:
        BadInput: There are more rows than columns.
    """
    if array.shape[0] > array.shape[1]:
        raise BadInput(
            f"[adapter] rank is {array.shape[0]}; a layer of width {array.shape[1]} has no room "
            "for as many orthonormal rows"
        )
    columns, _ = torch.linalg.qr(array.double().T)
    return _plain(columns.T)


def cut(arrays: Arrays, rank: int) -> dict[str, Tensor]:
    """The arrays as a hospital of this rank trains them: the first rows of A, columns of B."""
    sliced = dict(arrays)
    for name in named(arrays, A):
        sliced[name] = arrays[name][:rank].contiguous()
    for name in named(arrays, B):
        sliced[name] = arrays[name][:, :rank].contiguous()
    return sliced


def cut_off(arrays: Arrays, rank: int) -> dict[str, Product]:
    """What ``cut`` leaves out of each layer's product."""
    return {
        layer: Product(arrays[layer + B][:, rank:], arrays[layer + A][rank:])
        for layer in layers(arrays)
    }


def pad(change: Arrays, like: Arrays) -> dict[str, Tensor]:
    """Changes of cut arrays as changes of whole ones: what was cut off did not move."""
    padded = {}
    for name, array in change.items():
        whole = array.new_zeros(like[name].shape)
        whole[tuple(slice(0, size) for size in array.shape)] = array
        padded[name] = whole
    return padded


def widened(arrays: Arrays, behind: Arrays) -> dict[str, Tensor]:
    """An adapter and its background as one adapter of a larger rank."""
    wide = dict(arrays)
    for layer in layers(arrays):
        held = background(behind, layer)
        if held is not None:
            wide |= write_product(layer, stack([product(arrays, layer), held]))
    return wide


def pick(arrays: Arrays, names: Iterable[str]) -> dict[str, Tensor]:
    """The arrays called ``names``."""
    return {name: arrays[name] for name in names}


def _plain(array: Tensor) -> Tensor:
    """As arrays are kept and sent."""
    return array.float().contiguous()
