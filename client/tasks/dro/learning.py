"""What a soft prompt learns from queries: DRO's losses, or vanilla prompt tuning on replies.

The base is frozen. A query's state under the words is found without gradients, in the same step.
Source: Zheng et al. (2024), released ``train.py`` and ``train_unlikelihood.py``; vanilla tuning is
cross-entropy on the good reply and ``-log(1 - p)`` on the bad one, means over a reply's tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wardround.client.tasks.base import Batch, Record
from wardround.client.tasks.dro.anchors import load_anchors
from wardround.client.tasks.dro.config import DroConfig, Method
from wardround.client.tasks.dro.evaluation import row_of
from wardround.client.tasks.dro.frame import check_template, leading_ids, prompt_ids
from wardround.client.tasks.dro.losses import terms
from wardround.client.tasks.dro.splice import SoftPrompted, embeddings, last_states
from wardround.client.tasks.rows import IGNORED, Row, pad, pad_token_id
from wardround.client.trainable import Trainable
from wardround.privacy.errors import BadInput

NAME = "soft_prompt"


@dataclass(frozen=True)
class QueryBatch(Batch):
    """Queries under the soft prompt, and under the words where the method compares.

    Attributes:
        settings: Method and weights.
    """

    settings: DroConfig


def attach_prompt(model: nn.Module, tokenizer: Any, settings: DroConfig) -> Trainable:
    """A soft prompt that begins as the words' embeddings.

    Raises:
        BadInput: The words have no tokens, or there are no anchors with this hash.
        PolicyRefused: The chat template has another hash.
    """
    check_template(tokenizer, settings.frame)
    words = prompt_ids(tokenizer, settings.prompt)
    if not words:
        raise BadInput("[task] prompt has no tokens")
    anchors = None
    if settings.method is Method.DRO:
        anchors = load_anchors(settings.anchors.folder, settings.anchors.sha256)
    table = embeddings(model).weight
    assert isinstance(table, Tensor)
    if anchors is not None and len(anchors.mean) != table.shape[1]:
        raise BadInput(
            f"[task.anchors] folder {settings.anchors.folder!r}: states of {len(anchors.mean)} "
            f"numbers; the base's have {table.shape[1]}"
        )
    vectors = table.detach()[list(words)]
    vectors = vectors if vectors.dtype == torch.float64 else vectors.float()
    prompted = SoftPrompted(model, vectors, anchors, leading_ids(tokenizer, settings.frame))
    return Trainable(prompted.eval(), {NAME: prompted.prompt.weight}, detach=lambda: model)


def collate(units: Sequence[Sequence[Record]], tokenizer: Any, settings: DroConfig) -> QueryBatch:
    """The rows of these units' queries."""
    length = len(prompt_ids(tokenizer, settings.prompt))
    queries = [(record.content, number) for number, unit in enumerate(units) for record in unit]
    filler = pad_token_id(tokenizer)
    soft = [row_of(tokenizer, settings, query, "soft", length) for query, _ in queries]
    unit_of_row = [number for _, number in queries]
    if settings.method is Method.VANILLA:
        rows = [
            _with_reply(tokenizer, row, reply, settings.max_length)
            for (query, _), row in zip(queries, soft, strict=True)
            for reply in (query.good, query.bad)
        ]
        inputs = pad(rows, filler)
        unit_of_row = [number for number in unit_of_row for _ in range(2)]
    else:
        inputs = pad([(row, 1) for row in soft], filler)
        words = [row_of(tokenizer, settings, query, "text", length) for query, _ in queries]
        text = pad([(row, 1) for row in words], filler)
        inputs |= {f"text_{name}": value for name, value in text.items()}
        inputs["harmless"] = torch.tensor([query.label for query, _ in queries])
    where = torch.tensor(unit_of_row, dtype=torch.long)
    return QueryBatch(inputs, where, len(units), settings)


def losses(model: SoftPrompted, batch: QueryBatch) -> Tensor:
    """One loss a unit, the sum of its queries'."""
    device = model.prompt.weight.device
    inputs = {name: value.to(device) for name, value in batch.inputs.items()}
    weights = batch.settings.loss
    if batch.settings.method is Method.VANILLA:
        found = _reply_losses(model, inputs, weights.unlikelihood)
    else:
        if model.anchors is None:
            raise ValueError("this soft prompt was attached without anchors")
        words = {name.removeprefix("text_"): x for name, x in inputs.items() if "text_" in name}
        with torch.no_grad():
            before = last_states(model.base, words)
        after = last_states(model, inputs)
        anchors = model.anchors.to(after)
        found = terms(after, before, inputs["harmless"], anchors).total(weights)
    unit = batch.unit_of_row.to(device)
    return found.new_zeros(batch.units).index_add(0, unit, found)


def _reply_losses(model: nn.Module, inputs: Mapping[str, Tensor], unlikelihood: float) -> Tensor:
    """Vanilla tuning's loss of each row; good replies and bad ones by turns."""
    logits = model(
        input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
    ).logits[:, :-1]
    following = inputs["labels"][:, 1:]
    rows, places = (following != IGNORED).nonzero(as_tuple=True)
    chosen = logits[rows, places]
    chosen = chosen if chosen.dtype == torch.float64 else chosen.float()
    surprise = functional.cross_entropy(chosen, following[rows, places], reduction="none")
    # log(1 - exp(-x)) without losing what is near 0 or 1; a sure token's cost stays finite.
    certain = torch.log(-torch.expm1(-surprise.clamp(min=1e-6)))
    bad = rows % 2 == 1
    each = torch.where(bad, -unlikelihood * certain, surprise)
    total = each.new_zeros(len(following)).index_add(0, rows, each)
    return total / (following != IGNORED).sum(1).clamp(min=1)


def _with_reply(tokenizer: Any, row: Sequence[int], reply: str, max_length: int) -> Row:
    """A query's row and a reply to learn from; a long reply loses its end, a query its start."""
    said: list[int] = tokenizer(" " + reply.strip(), add_special_tokens=False)["input_ids"]
    if tokenizer.eos_token_id is not None:
        said = [*said, tokenizer.eos_token_id]
    said = said[: max_length - 1]
    kept = row[-(max_length - len(said)) :]
    return (*kept, *said), len(kept)
