"""Both kinds of error, sampled: harmful queries answered, harmless ones refused.

Without a prompt, under the words, and under the soft prompt, each by any of k replies and by their
mean, as Zheng et al. (2024) count in table 1; the judge is ``refusals``.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from wardround.client.tasks.dro.anchoring import sample, states_of
from wardround.client.tasks.dro.anchors import Anchors
from wardround.client.tasks.dro.config import DroConfig
from wardround.client.tasks.dro.frame import Ids, with_soft, with_text, without_prompt
from wardround.client.tasks.dro.losses import terms
from wardround.client.tasks.dro.records import Query
from wardround.client.tasks.dro.refusals import refuses
from wardround.client.tasks.dro.splice import SoftPrompted


def evaluate_safety(
    model: SoftPrompted,
    tokenizer: Any,
    queries: Sequence[Query],
    config: DroConfig,
    seed: int = 0,
) -> dict[str, float]:
    """Errors on queries that may be looked at.

    Args:
        model: The frozen base with its soft prompt.
        tokenizer: Its tokenizer.
        queries: Labelled.
        config: How many replies, and whether baselines are asked too.
        seed: Public; draws replies, the same way before and after.

    Returns:
        For ``soft``, and where wanted ``none`` and ``text``: ``complied_any`` and
        ``complied_mean`` of harmful queries, ``refused_any`` and ``refused_mean`` of harmless ones,
        in [0, 1]; ``moved``, how far the prompt has gone; with anchors the mean losses, how often
        the probe of harmfulness is right under the words, and the mean shift of harmful and
        harmless queries along the direction of being answered.
    """
    ways = ("none", "text", "soft") if config.baselines else ("soft",)
    found: dict[str, float] = {}
    for way in ways:
        rows = [row_of(tokenizer, config, query, way, model.length) for query in queries]
        generator = torch.Generator().manual_seed(seed)
        said = sample(model, tokenizer, rows, config.samples, config.max_tokens, generator)
        refused = [[refuses(reply) for reply in replies] for replies in said]
        found |= {f"{way}_{name}": value for name, value in errors(queries, refused).items()}
    found["moved"] = float((model.prompt.weight - model.start).detach().norm())
    return found | _losses(model, tokenizer, queries, config)


def row_of(tokenizer: Any, config: DroConfig, query: Query, way: str, length: int) -> Ids:
    """A query as a row, as one of the ways asks it."""
    if way == "none":
        row = without_prompt(tokenizer, config.frame, query.text)
    elif way == "text":
        row = with_text(tokenizer, config.frame, query.text, config.prompt)
    else:
        row = with_soft(tokenizer, config.frame, query.text, length)
    return row[-config.max_length :]


def errors(queries: Sequence[Query], refused: Sequence[Sequence[bool]]) -> dict[str, float]:
    """Shares of wrong replies, by any of a query's replies and by their mean.

    A kind of query that does not occur is left out.
    """
    found = {}
    for name, harmful in (("complied", True), ("refused", False)):
        wrong = [
            [one is not harmful for one in replies]
            for query, replies in zip(queries, refused, strict=True)
            if query.harmful is harmful
        ]
        if wrong:
            found[f"{name}_any"] = fmean(map(any, wrong))
            found[f"{name}_mean"] = fmean(map(fmean, wrong))
    return found


def _losses(
    model: SoftPrompted, tokenizer: Any, queries: Sequence[Query], config: DroConfig
) -> dict[str, float]:
    """Mean losses, and where states have gone; nothing without anchors."""
    if model.anchors is None:
        return {}
    before, after = (
        states_of(
            model,
            tokenizer,
            [row_of(tokenizer, config, query, way, model.length) for query in queries],
        )
        for way in ("text", "soft")
    )
    anchors = model.anchors.to(before)
    labels = torch.tensor([query.label for query in queries])
    each = terms(after, before, labels, anchors)
    along = _direction(anchors)
    shift = (after - before) @ along
    found = {
        "loss_refusal": float(each.refusal.mean()),
        "loss_harm": float(each.harm.mean()),
        "loss_rest": float(each.rest.mean()),
        "probe_accuracy": float(
            ((anchors.scores(before)[:, 1] > 0) == (labels > 0)).float().mean()
        ),
    }
    for name, label in (("harmful", 0.0), ("harmless", 1.0)):
        if bool((labels == label).any()):
            found[f"shift_{name}"] = float(shift[labels == label].mean())
    return found


def _direction(anchors: Anchors) -> Tensor:
    """The unit vector along which queries are answered more."""
    direction: Tensor = anchors.weights[0] @ anchors.basis
    unit: Tensor = direction / direction.norm().clamp(min=torch.finfo(direction.dtype).tiny)
    return unit
