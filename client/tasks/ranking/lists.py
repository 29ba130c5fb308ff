"""From lists of candidates to one loss a privacy unit: rows for the model, scores back into lists.

Every row belongs to one list, every list to one unit; a unit's loss is the sum of its lists'. That
is what makes the clip see a query with its whole list, or a patient with all hers, as one. Source:
Zhang et al. (2024), TSARankLLM, section 3.3: ``L = L_rank + L_ntp + L_reference``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wardround.client.tasks.base import Batch, Record
from wardround.client.tasks.ranking import head, rows
from wardround.client.tasks.ranking.config import RankingConfig, ScorerName
from wardround.client.tasks.ranking.likelihood import mean_log_likelihood, query_logits
from wardround.client.tasks.ranking.losses import list_losses, reference_kl, table_of
from wardround.client.tasks.ranking.records import Candidate, RankingQuery
from wardround.client.tasks.ranking.trains import as_reference


@dataclass(frozen=True)
class ListBatch(Batch):
    """Rows of lists, and how their scores become losses."""

    config: RankingConfig


def collate_lists(
    units: Sequence[Sequence[Record]], tokenizer: Any, config: RankingConfig
) -> ListBatch:
    """One row a passage of a training list.

    A list that teaches nothing keeps one row and weighs 0, so that every unit has a row and
    nothing is refused for what the data says.
    """
    texts: list[tuple[str, str]] = []
    unit_of_row: list[int] = []
    list_of_row: list[int] = []
    place: list[int] = []
    weight: list[float] = []
    for number, records in enumerate(units):
        for record in records:
            query: RankingQuery = record.content
            usable = query.training_list(config.group)
            group: Sequence[Candidate] = usable or query.candidates[:1]
            texts += [(candidate.text, query.text) for candidate in group]
            unit_of_row += [number] * len(group)
            list_of_row += [len(weight)] * len(group)
            place += range(len(group))
            weight.append(float(bool(usable)))
    inputs = encode_pairs(texts, tokenizer, config)
    lists = torch.tensor(list_of_row, dtype=torch.long)
    inputs |= {
        "list_of_row": lists,
        "place": torch.tensor(place, dtype=torch.long),
        "weight": torch.tensor(weight, dtype=torch.float64)[lists],
    }
    return ListBatch(inputs, torch.tensor(unit_of_row, dtype=torch.long), len(units), config)


def encode_pairs(
    texts: Sequence[tuple[str, str]], tokenizer: Any, config: RankingConfig
) -> dict[str, Tensor]:
    """Padded rows of (passage, query) texts, as the scorer reads them."""
    filler = rows.pad_token_id(tokenizer)
    if config.scorer is ScorerName.HEAD:
        return head.pad_head(
            [head.encode_head(tokenizer, p, q, config.max_length) for p, q in texts], filler
        )
    return rows.pad(
        [rows.encode(tokenizer, p, q, config.max_length, config.max_query) for p, q in texts],
        filler,
    )


def unit_losses(model: nn.Module, batch: ListBatch) -> Tensor:
    """One loss a unit, shape ``(units,)``."""
    config = batch.config
    device = next(model.parameters()).device
    inputs = {name: value.to(device) for name, value in batch.inputs.items()}
    first = inputs["place"] == 0
    unit_of_list = batch.unit_of_row.to(device)[first]
    if config.scorer is ScorerName.HEAD:
        scores = head.head_scores(model, inputs)
        extra = scores.new_zeros(len(unit_of_list))
    else:
        scores, extra = _likelihoods(model, inputs, first, config)
    lists = inputs["list_of_row"]
    table = table_of(scores, lists, inputs["place"], len(unit_of_list))
    likelihood = config.scorer is ScorerName.LIKELIHOOD
    losses = list_losses(config.loss, config.score, config.temperature, table, likelihood) + extra
    weighted = losses * inputs["weight"][first].to(losses.dtype)
    return losses.new_zeros(batch.units).index_add(0, unit_of_list, weighted)


def _likelihoods(
    model: nn.Module, inputs: Mapping[str, Tensor], first: Tensor, config: RankingConfig
) -> tuple[Tensor, Tensor]:
    """Each row's score, and each list's next-token term and difference penalty, weighted."""
    reference = None
    if config.reference_kl_weight:
        with torch.no_grad(), as_reference(model):
            reference = query_logits(model, inputs)
    logits = query_logits(model, inputs)
    labels = inputs["labels"]
    scores = mean_log_likelihood(logits, labels)
    extra = -config.ntp_weight * scores[first]
    if reference is not None:
        penalty = reference_kl(logits, reference, labels != rows.IGNORED)
        ones = torch.ones_like(penalty)
        lists = inputs["list_of_row"]
        total = torch.zeros_like(extra).index_add(0, lists, penalty)
        count = torch.zeros_like(extra).index_add(0, lists, ones)
        extra = extra + config.reference_kl_weight * total / count
    return scores, extra
