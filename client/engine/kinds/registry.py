"""The list of module kinds whose per-unit gradients the fused engine can form.

A newcomer adds a file with one function that takes a module and a sink and returns the forward to
use in place of the module's own, and registers it under the module's exact type. Subclasses do not
inherit a kind: a subclass that changes ``forward`` would get wrong gradients in silence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from wardround.client.engine.sink import Sink

Forward = Callable[..., Tensor]
Kind = Callable[[Any, Sink], Forward | None]

_KINDS: dict[type[nn.Module], Kind] = {}


def register(*types: type[nn.Module]) -> Callable[[Kind], Kind]:
    """Register a kind for these exact module types.

    The function returns ``None`` for a module of the type that it cannot do exactly.

    Raises:
        ValueError: The type has a kind already.
    """

    def add(kind: Kind) -> Kind:
        for module_type in types:
            if module_type in _KINDS:
                raise ValueError(f"{module_type.__name__} has a kind already")
            _KINDS[module_type] = kind
        return kind

    return add


def forward_for(module: nn.Module, sink: Sink) -> Forward | None:
    """The forward that leaves this module's per-unit gradients in the sink, if there is one."""
    kind = _KINDS.get(type(module))
    return None if kind is None else kind(module, sink)
