"""Many pairs of passage and query scored with each passage read once.

The score reads the passage first, so what the model keeps of a prompt serves every query that is
asked of it, and many passages of one query share nothing but the pass they are computed in. A
prompt that occurs once is scored whole; one that occurs in several pairs is read once and kept for
them. Scores are those of ``likelihood`` up to the order of additions. Knows nothing of lists.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from wardround.client.tasks.ranking.likelihood import accepted, mean_log_likelihood, query_logits
from wardround.client.tasks.ranking.rows import Ids, Row, pad, prompt_block, query_block

Item = TypeVar("Item")
# On a CPU a pass whose activations stay in its cache is fastest; measured by bench ranking.
TOKENS_PER_PASS = 1536


@torch.no_grad()
def score_pairs(
    model: nn.Module, pairs: Sequence[Row], filler: int, tokens_per_pass: int = TOKENS_PER_PASS
) -> list[float]:
    """The mean log-likelihood of each pair's query, in the order given.

    Args:
        model: A causal language model, adapted or not.
        pairs: Prompt and query each, from ``rows.encode``.
        filler: The padding token.
        tokens_per_pass: Most tokens in one forward pass, padding included, where it holds more
            than one row; memory grows with it.
    """
    uses = Counter(prompt for prompt, _ in pairs)
    # Rows of like length stand together, so that little of a pass is padding.
    order = sorted(range(len(pairs)), key=lambda i: (len(pairs[i][0]), pairs[i]))
    found = [0.0] * len(pairs)
    device = next(model.parameters()).device
    single = [i for i in order if uses[pairs[i][0]] == 1]
    lengths = [len(prompt) + len(query) for prompt, query in pairs]
    for part in _passes(single, lambda i: lengths[i], tokens_per_pass):
        inputs = _to(device, pad([pairs[i] for i in part], filler))
        _keep(found, part, mean_log_likelihood(query_logits(model, inputs), inputs["labels"]))
    shared = [i for i in order if uses[pairs[i][0]] > 1]
    prompts = list(dict.fromkeys(pairs[i][0] for i in shared))
    askers: dict[Ids, list[int]] = {}
    for i in shared:
        askers.setdefault(pairs[i][0], []).append(i)
    for chunk in _passes(prompts, len, tokens_per_pass):
        kept = _Prompts(model, chunk, filler, device)
        asked = [(row, i) for row, prompt in enumerate(chunk) for i in askers[prompt]]
        for some in _passes(asked, lambda one: lengths[one[1]], tokens_per_pass):
            numbers = [i for _, i in some]
            scores = kept.scores([row for row, _ in some], [pairs[i] for i in numbers], filler)
            _keep(found, numbers, scores)
    return found


class _Prompts:
    """What a model keeps of some prompts, and scores of queries that follow them."""

    def __init__(
        self, model: nn.Module, prompts: Sequence[Ids], filler: int, device: torch.device
    ) -> None:
        self._model = model
        ids, mask = prompt_block(prompts, filler)
        self._mask = mask.to(device)
        known = accepted(model)
        extra: dict[str, Any] = {}
        if "position_ids" in known:
            extra["position_ids"] = (torch.arange(ids.shape[1]).expand_as(ids) * mask).to(device)
        if "logits_to_keep" in known:
            extra["logits_to_keep"] = 1
        output = model(input_ids=ids.to(device), attention_mask=self._mask, use_cache=True, **extra)
        self._cache: Any = output.past_key_values

    def scores(self, prompt_of_row: Sequence[int], rows: Sequence[Row], filler: int) -> Tensor:
        """Scores of rows whose prompts are these."""
        chosen = torch.tensor(prompt_of_row, device=self._mask.device)
        block = _to(self._mask.device, query_block(rows, filler))
        block["attention_mask"] = torch.cat([self._mask[chosen], block["attention_mask"]], dim=1)
        logits = query_logits(
            self._model, block, past_key_values=self._select(chosen), use_cache=True
        )
        return mean_log_likelihood(logits, block["labels"])

    def _select(self, chosen: Tensor) -> Any:
        """A cache of the chosen prompts; growing it leaves the kept one as it is."""
        selected = copy.copy(self._cache)
        selected.layers = [copy.copy(layer) for layer in self._cache.layers]
        selected.batch_select_indices(chosen)
        return selected


def _passes(
    items: Sequence[Item], length: Callable[[Item], int], tokens: int
) -> Iterator[list[Item]]:
    """Runs of items that, padded to their longest, have at most so many tokens; at least one."""
    part: list[Item] = []
    longest = 0
    for item in items:
        longest = max(longest, length(item))
        if part and longest * (len(part) + 1) > tokens:
            yield part
            part, longest = [], length(item)
        part.append(item)
    if part:
        yield part


def _to(device: torch.device, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on a device."""
    return {name: value.to(device) for name, value in inputs.items()}


def _keep(found: list[float], places: Sequence[int], scores: Tensor) -> None:
    """Put a pass's scores where they belong."""
    for place, score in zip(places, scores.tolist(), strict=True):
        found[place] = score
