"""The ranking score: how likely a model finds the query once it has read the passage.

``s(q, d) = 1/|q| * sum_i log p(q_i | prompt(d), q_<i)``, in natural logarithms; no head, no end
token. Source: Zhang et al. (2024), TSARankLLM, eq. 1 and released code. Works with any causal
language model of transformers. Knows nothing of lists, labels or units.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from wardround.client.tasks.ranking.rows import IGNORED


def query_logits(model: nn.Module, inputs: Mapping[str, Tensor], **extra: Any) -> Tensor:
    """Logits at the places of ``inputs["labels"]``, shape ``(rows, longest query, vocabulary)``.

    In float32, or float64 for such a model.
    """
    width = inputs["labels"].shape[1]
    known = accepted(model)
    settings: dict[str, Any] = {"use_cache": False, **extra}
    if "position_ids" in known:
        settings["position_ids"] = inputs["position_ids"]
    if "logits_to_keep" in known:
        settings["logits_to_keep"] = width
    logits: Tensor = model(
        input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], **settings
    ).logits
    logits = logits[:, -width:]
    return logits if logits.dtype == torch.float64 else logits.float()


def mean_log_likelihood(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean log-probability of each row's labels, shape ``(rows,)``; a row's own value alone."""
    losses = functional.cross_entropy(
        logits.transpose(1, 2), labels, reduction="none", ignore_index=IGNORED
    )
    return -losses.sum(1) / (labels != IGNORED).sum(1)


def accepted(model: nn.Module) -> frozenset[str]:
    """Names of the arguments that a language model's forward takes, adapted or not."""
    adapted: Any = model
    own = adapted.get_base_model() if hasattr(model, "get_base_model") else adapted
    return frozenset(inspect.signature(own.forward).parameters)
