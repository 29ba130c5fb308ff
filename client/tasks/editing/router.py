"""Which scale set a query gets, when nobody says which correction it is about.

The reference looks every evaluated prompt up in a table that was traced beforehand and knows no
other. Here a query's factors come from tracing it (``trace``), from the nearest public edit or zero
when none is near (``nearest-edit``), or are one (``none``, plain LoRA). Nothing needed for that is
derived from a private correction. Source of the table: Xu et al. (2024), released evaluation code
of MedLaSA.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from wardround.client.lora import without_adapter
from wardround.client.tasks.editing.anatomy import Kind
from wardround.client.tasks.editing.records import Edit
from wardround.client.tasks.editing.row_scales import RowScales
from wardround.client.tasks.editing.subjects import find_subject, place_subject

# How deep into the model a prompt's last token has become what is asked, of which subject.
_DEPTH_OF_MEANING = 0.75


class RouterKind(StrEnum):
    """Where a query's scale set comes from."""

    TRACE = "trace"
    NEAREST_EDIT = "nearest-edit"
    NONE = "none"


class Router:
    """Finds the factors of prompts and holds them around forward passes.

    Args:
        kind: Where they come from.
        model: The adapted model.
        tokenizer: Its tokenizer.
        scales: The model's row scales.
        public: Public corrections: their subjects help to find a query's, and ``nearest-edit``
            compares with their prompts.
        threshold: Least cosine with a public edit's prompt; below it the adapter is off.

    Privacy: ``public`` must be public; it is kept in memory and never written.
    """

    def __init__(
        self,
        kind: RouterKind,
        model: Any,
        tokenizer: Any,
        scales: RowScales,
        public: Iterable[Edit],
        threshold: float = 0.85,
    ) -> None:
        self._kind, self._model, self._tokenizer = kind, model, tokenizer
        self._scales, self._threshold = scales, threshold
        edits = list(public)
        self._names = tuple(dict.fromkeys(edit.subject for edit in edits))
        self._edits = [(edit.prompt, edit.subject) for edit in edits]
        self._stored: Tensor | None = None
        self._found: dict[str, Tensor] = {}

    @contextmanager
    def during(self, prompts: Sequence[str]) -> Iterator[None]:
        """Inside, forward passes have one row a prompt, with that prompt's factors."""
        with self._scales.during([self.of(prompt) for prompt in prompts]):
            yield

    def of(self, prompt: str) -> Tensor:
        """A prompt's factors, shape ``(kinds, layers)``."""
        if self._kind is RouterKind.NONE:
            return torch.ones(len(Kind), self._scales.depth)
        if prompt not in self._found:
            traced = self._kind is RouterKind.TRACE
            self._found[prompt] = self._traced(prompt) if traced else self._nearest(prompt)
        return self._found[prompt]

    def _traced(self, prompt: str) -> Tensor:
        """The prompt's own scale set."""
        subject = find_subject(prompt, self._names)
        return self._scales.of(place_subject(self._tokenizer, prompt, subject))

    def _nearest(self, prompt: str) -> Tensor:
        """The nearest public edit's scale set, or zeros where none is near."""
        if not self._edits:
            return torch.zeros(len(Kind), self._scales.depth)
        if self._stored is None:
            self._stored = torch.stack([self._meaning(known) for known, _ in self._edits])
        alike = functional.cosine_similarity(self._meaning(prompt)[None], self._stored)
        best = int(alike.argmax())
        if float(alike[best]) < self._threshold:
            return torch.zeros(len(Kind), self._scales.depth)
        known, subject = self._edits[best]
        return self._scales.of(place_subject(self._tokenizer, known, subject))

    @torch.no_grad()
    def _meaning(self, prompt: str) -> Tensor:
        """The base's hidden state at the prompt's last token, three quarters of the way up."""
        ids, _ = place_subject(self._tokenizer, prompt, "")
        device = next(self._model.parameters()).device
        with without_adapter(self._model):
            hidden = self._model(
                input_ids=torch.tensor([ids], device=device), output_hidden_states=True
            ).hidden_states
        layer = round(_DEPTH_OF_MEANING * (len(hidden) - 1))
        found: Tensor = hidden[layer][0, -1].float()
        return found
