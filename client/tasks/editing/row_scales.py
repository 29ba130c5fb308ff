"""LoRA whose strength differs from row to row: one shared adapter serves facts with own scales.

A hook on each ``lora_B`` multiplies a row's low-rank update by that row's factor. The factors
depend on the frozen base and the row's own prompt alone, so per-unit gradients stay exact and no
unit touches another: h = W x + f(row) (alpha / rank) B A x, with f from ``scales.factors``. Source:
Xu et al. (2024), "Editing factual knowledge and explanatory ability of medical LLMs" (MedLaSA), who
rewrite the adapter's configuration between any two prompts instead. Knows nothing of records.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from wardround.client.lora import AdapterConfig, attach_lora, without_adapter
from wardround.client.tasks.editing.anatomy import Anatomy, Kind, find_anatomy
from wardround.client.tasks.editing.scales import ScaleConfig, factors
from wardround.client.tasks.editing.tracing import TraceConfig, subject_sigma, trace
from wardround.client.trainable import Trainable

Prompt = tuple[tuple[int, ...], tuple[int, ...]]  # token ids, and the subject's places among them
_KINDS = {kind: number for number, kind in enumerate(Kind)}


class RowScales:
    """The factors of the rows under way, and how to find those of a prompt.

    Privacy: ``of`` remembers prompts' factors in this process only; nothing of it is ever written
    or sent. A table from prompts to factors would tell every corrected prompt.
    """

    def __init__(
        self, model: nn.Module, adapter: AdapterConfig, how: TraceConfig, scale: ScaleConfig
    ) -> None:
        self._model = model
        self._anatomy = find_anatomy(model)
        self._adapter, self.trace_config, self.scale_config = adapter, how, scale
        self.sigma = how.sigma or subject_sigma(model)
        self._ranks: dict[Kind, list[int]] = {
            kind: [adapter.rank] * len(self._anatomy.blocks) for kind in Kind
        }
        self._known: dict[Prompt, Tensor] = {}
        self._now: Tensor | None = None

    @property
    def anatomy(self) -> Anatomy:
        """The base's parts."""
        return self._anatomy

    @property
    def depth(self) -> int:
        """How many layers the model has."""
        return len(self._anatomy.blocks)

    def listen(self, path: str, layer: Any) -> None:
        """Let the factors act on the LoRA layer at ``path`` of the base."""
        place = self._anatomy.place(path)
        if place is None:
            raise ValueError(f"{path} lies in no attention and no MLP of a block")
        kind, number = place
        self._ranks[kind][number] = next(iter(layer.r.values()))

        def scale(_: nn.Module, args: object, output: Tensor) -> Tensor:
            if self._now is None:
                return output
            if len(output) != len(self._now):
                raise RuntimeError(f"{len(self._now)} scales were set for {len(output)} rows")
            factor = self._now[:, _KINDS[kind], number].to(output)
            return output * factor.view(-1, *(1,) * (output.dim() - 1))

        for lora_b in layer.lora_B.values():
            lora_b.register_forward_hook(scale)

    def of(self, prompt: Prompt) -> Tensor:
        """A prompt's factors, shape ``(kinds, layers)``; ones where it shows no subject.

        Traced on the base without its adapter, once a process.
        """
        if prompt not in self._known:
            ids, subject = prompt
            if not subject:
                return torch.ones(len(Kind), self.depth, dtype=torch.float64)
            with without_adapter(self._model):
                traced = trace(self._anatomy, ids, subject, self.trace_config, self.sigma)
            self._known[prompt] = factors(
                traced, self.scale_config, self._adapter.alpha, self._adapter.rank, self._ranks
            )
        return self._known[prompt]

    def during_rows(self, inputs: Mapping[str, Tensor]) -> AbstractContextManager[None]:
        """``during`` for the rows of a batch, from what ``rows.pad_prompts`` says of them."""
        found = []
        for ids, (begin, end, length) in zip(
            inputs["traced_ids"].tolist(), inputs["traced_span"].tolist(), strict=True
        ):
            found.append(self.of((tuple(ids[:length]), tuple(range(begin, end)))))
        return self.during(found)

    @contextmanager
    def during(self, each: Sequence[Tensor]) -> Iterator[None]:
        """Inside, forward passes have exactly these rows, each with its own factors."""
        before = self._now
        self._now = torch.stack(list(each)) if each else None
        try:
            yield
        finally:
            self._now = before


def attach_scaled_lora(
    model: nn.Module,
    config: AdapterConfig,
    how: TraceConfig,
    scale: ScaleConfig,
    generator: torch.Generator,
) -> Trainable:
    """LoRA as ``attach_lora`` makes it, with factors a row; ``scales_of`` finds them again.

    Raises:
        BadInput: A target names no linear module, or the model has no decoder blocks.
        ValueError: A target lies outside attention and MLP.
    """
    trainable = attach_lora(model, config, generator)
    adapted: Any = trainable.model
    scales = RowScales(adapted, config, how, scale)
    for path, layer in adapted.get_base_model().named_modules():
        if hasattr(layer, "lora_B") and hasattr(layer, "base_layer"):
            scales.listen(path, layer)
    adapted.row_scales = scales
    return trainable


def scales_of(model: nn.Module) -> RowScales | None:
    """The row scales of a model that ``attach_scaled_lora`` made, or ``None``."""
    found: RowScales | None = getattr(model, "row_scales", None)
    return found
