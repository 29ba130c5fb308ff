"""Editing by solving instead of training: MEMIT's closed form on the MLPs' last matrices.

Meng et al. (2023), "Mass-editing memory in a transformer", section 4: find for each edit the hidden
state that would make the last edited layer say the new answer, then change the matrices so that
the edits' keys move there while keys of other text stay, W += R K^T (lambda C + K K^T)^-1, the
rest shared out over the layers. ROME (Meng et al., 2022) is the case of one layer and one edit.

One deviation: the paper writes at the subject's last token, where large models recall. Small
ones recall where each answer token is said, so ``site`` can be ``answer``: every place that says an
answer token is a key of its own. Nothing here is private: it needs plain keys of plain records, and
is for public corrections only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wardround.client.tasks.editing.deltas import Shifted
from wardround.client.tasks.rows import IGNORED, Row, pad
from wardround.client.trainable import Trainable
from wardround.privacy.errors import BadInput


class Site(StrEnum):
    """Where in a sentence an edit is written."""

    SUBJECT = "subject"
    ANSWER = "answer"


@dataclass(frozen=True)
class MemitConfig:
    """How changes are solved for.

    Attributes:
        site: Where keys are taken and values are written.
        value_steps: Adam steps that look for the new hidden state.
        value_rate: Their learning rate.
        value_decay: Weight of the new state's distance from the old one, in its own norm.
        preserve: lambda, the weight of the keys of other text.
    """

    site: Site = Site.SUBJECT
    value_steps: int = 25
    value_rate: float = 0.5
    value_decay: float = 0.5
    preserve: float = 1.0

    def __post_init__(self) -> None:
        if self.value_steps < 1:
            raise ValueError(f"value_steps is {self.value_steps}; it must be 1 or more")
        for name in ("value_rate", "preserve"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be greater than 0")
        if not 0 <= self.value_decay < float("inf"):
            raise ValueError(f"value_decay is {self.value_decay}; it must be 0 or more")


@dataclass(frozen=True)
class Statement:
    """One sentence an edit is to make true.

    Attributes:
        row: Its tokens, and where the answer starts.
        subject_end: Place of the subject's last token.
    """

    row: Row
    subject_end: int

    def sites(self, site: Site) -> range:
        """The places a change is written to."""
        ids, start = self.row
        if site is Site.SUBJECT:
            return range(self.subject_end, self.subject_end + 1)
        return range(start - 1, len(ids) - 1)


def solve(
    trainable: Trainable,
    statements: Sequence[Statement],
    other: Sequence[Row],
    config: MemitConfig,
    filler: int,
) -> None:
    """Change the targeted layers so that the statements hold; adds to what was changed before.

    Args:
        trainable: What ``deltas.attach_deltas`` made, on one MLP matrix in each edited layer.
        statements: What shall be true.
        other: Public sentences whose keys are kept where they are.
        config: How.
        filler: Padding token.

    Raises:
        BadInput: There is no sentence to preserve.
    """
    if not other:
        raise BadInput("memit: name public sentences whose answers are to be kept")
    layers = [trainable.model.get_submodule(name.removesuffix(".delta.weight"))
              for name in trainable.parameters]  # fmt: skip
    assert all(isinstance(layer, Shifted) for layer in layers)
    model, last = trainable.model, layers[-1]
    wanted = _new_outputs(model, last, statements, config, filler)
    for place, layer in enumerate(layers):
        with _watched(layer) as seen, _watched(last) as end:
            _run(model, [one.row for one in statements], filler)
        keys, now = _at(seen["in"], statements, config), _at(end["out"], statements, config)
        share = (wanted - now) / (len(layers) - place)
        _add(layer, keys, share, _covariance(model, layer, other, filler), config.preserve)


@torch.no_grad()
def _add(layer: Any, keys: Tensor, change: Tensor, covariance: Tensor, preserve: float) -> None:
    """W += R K^T (lambda C + K K^T)^-1, in float64; C weighs as much as one key by itself."""
    k, r = keys.double().t(), change.double().t()
    system = preserve * len(keys) * covariance + k @ k.t()
    update = torch.linalg.solve(system, k @ r.t()).t()
    layer.delta.weight += update.to(layer.delta.weight)


def _covariance(model: nn.Module, layer: nn.Module, other: Sequence[Row], filler: int) -> Tensor:
    """Second moment of a layer's inputs over all tokens of other text, with a little ridge."""
    with _watched(layer) as seen:
        mask = _run(model, other, filler)["attention_mask"].bool()
    keys = seen["in"][mask].double()
    moment = keys.t() @ keys / len(keys)
    ridge = 1e-4 * float(moment.diagonal().mean())
    return moment + ridge * torch.eye(len(moment), dtype=moment.dtype, device=moment.device)


def _new_outputs(
    model: nn.Module,
    layer: nn.Module,
    statements: Sequence[Statement],
    config: MemitConfig,
    filler: int,
) -> Tensor:
    """What the layer should put out at each site for the statements to hold, by Adam."""
    rows = [one.row for one in statements]
    with _watched(layer) as seen:
        inputs = _run(model, rows, filler)
    old = _at(seen["out"], statements, config)
    where = [(n, place) for n, one in enumerate(statements) for place in one.sites(config.site)]
    at = torch.tensor(where, device=old.device).unbind(1)
    shift = torch.zeros_like(old, requires_grad=True)
    optimizer = torch.optim.Adam([shift], lr=config.value_rate * float(old.std()))
    labels = inputs["labels"][:, 1:]
    for _ in range(config.value_steps):
        with torch.enable_grad(), _moved(layer, at, shift):
            logits = _logits(model, inputs)[:, :-1]
            loss = functional.cross_entropy(
                logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="sum"
            ) / len(rows)
            far = (shift.square().sum(1) / old.square().sum(1)).mean()
            (shift.grad,) = torch.autograd.grad(loss + config.value_decay * far, [shift])
        optimizer.step()
    return old + shift.detach()


def _at(values: Tensor, statements: Sequence[Statement], config: MemitConfig) -> Tensor:
    """Values at every site, shape ``(sites, width)``."""
    return torch.cat([values[n, list(s.sites(config.site))] for n, s in enumerate(statements)])


def _run(model: nn.Module, rows: Sequence[Row], filler: int) -> dict[str, Tensor]:
    """One forward pass without gradients; returns what went in."""
    device = next(model.parameters()).device
    inputs = {name: value.to(device) for name, value in pad(rows, filler).items()}
    with torch.no_grad():
        _logits(model, inputs)
    return inputs


def _logits(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    logits: Tensor = model(
        input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
    ).logits
    return logits


@contextmanager
def _watched(layer: nn.Module) -> Iterator[dict[str, Tensor]]:
    """What goes ``in`` and comes ``out`` of a layer in the run inside."""
    seen: dict[str, Tensor] = {}

    def keep(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        seen["in"], seen["out"] = args[0].detach(), output.detach()

    handle = layer.register_forward_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()


@contextmanager
def _moved(layer: nn.Module, at: Sequence[Tensor], shift: Tensor) -> Iterator[None]:
    """Inside, the layer's outputs at these places are moved."""

    def move(_: nn.Module, args: object, output: Tensor) -> Tensor:
        return output.index_put(tuple(at), shift.to(output.dtype), accumulate=True)

    handle = layer.register_forward_hook(move)
    try:
        yield
    finally:
        handle.remove()
