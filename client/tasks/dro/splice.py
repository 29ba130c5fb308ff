"""A soft prompt inside the input: a frozen model that looks up negative places in trained vectors.

``input_ids`` below zero are places of the prompt, all others are tokens. Everything else is the
model's own forward. The prompt is handed out once a row, so each row's gradient is its own
(``engine/per_row.py``). Knows nothing of losses, templates or privacy.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wardround.client.engine.per_row import PerRow
from wardround.client.tasks.dro.anchors import Anchors


class SoftPrompted(nn.Module):
    """A causal language model with ``length`` trained vectors for negative places.

    Attributes:
        base: The frozen model.
        prompt: The vectors, shape ``(length, hidden)``.
        start: What they were at first, to tell how far they have gone.
        anchors: What losses are measured against; None where they are not.
        leading: Tokens that stand before the prompt in every row.
    """

    start: Tensor

    def __init__(
        self,
        base: nn.Module,
        vectors: Tensor,
        anchors: Anchors | None = None,
        leading: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        self.base = base
        self.anchors = anchors
        self.leading = leading
        self.prompt = PerRow(vectors.detach().clone())
        self.register_buffer("start", vectors.detach().clone(), persistent=False)

    @property
    def length(self) -> int:
        """How many vectors there are."""
        return len(self.prompt.weight)

    def forward(self, input_ids: Tensor, **settings: Any) -> Any:
        """The base's own output for rows in which negative places are the prompt's vectors."""
        places = input_ids < 0
        embedded: Tensor = embeddings(self.base)(input_ids.clamp(min=0))
        if bool(places.any()):
            soft = self.prompt(len(input_ids)).to(embedded)
            index = (-1 - input_ids).clamp(min=0).unsqueeze(-1).expand_as(embedded)
            embedded = torch.where(places.unsqueeze(-1), soft.gather(1, index), embedded)
        return self.base(inputs_embeds=embedded, **settings)


def embeddings(base: nn.Module) -> nn.Module:
    """The model's table of token embeddings."""
    model: Any = base
    table: nn.Module = model.get_input_embeddings()
    return table


def hidden_size(base: nn.Module) -> int:
    """Numbers of a state."""
    table = embeddings(base).weight
    assert isinstance(table, Tensor)
    return table.shape[1]


def last_states(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """Each row's top-layer state at its last token, shape ``(rows, hidden)``.

    As transformers returns it: for Llama-like models behind the last norm. Rows are padded on the
    right. In float32, or float64 for such a model.
    """
    output = model(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        use_cache=False,
        output_hidden_states=True,
    )
    states: Tensor = output.hidden_states[-1]
    last = inputs["attention_mask"].sum(1) - 1
    chosen = states[torch.arange(len(states), device=states.device), last]
    return chosen if chosen.dtype == torch.float64 else chosen.float()
