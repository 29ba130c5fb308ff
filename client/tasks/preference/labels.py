"""The label of a preference: which of its two replies was preferred, and nothing else.

Replies are put into an order that does not depend on it, because files tend to name the preferred
one first. Source: Teku et al. (2025), "PROPS", on the privacy of preferences alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from wardround.client.tasks.base import Record, TaskConfig
from wardround.client.tasks.preference.config import preference_config
from wardround.client.tasks.preference.records import Judged
from wardround.privacy.errors import BadInput


def labels_of(records: Sequence[Record]) -> list[int]:
    """0 where the preferred reply comes first in the alphabet, 1 where the other does.

    Raises:
        BadInput: A record has not two different replies.
    """
    found = []
    for record in records:
        judged: Judged = record.content
        if len(set(judged.replies)) != 2 or len(judged.replies) != 2:
            raise BadInput("label-response needs records of two different replies")
        found.append(_order(judged).index(judged.best))
    return found


def relabel(records: Sequence[Record], labels: Sequence[int]) -> list[Record]:
    """The records as if these were their labels.

    Privacy: how far apart two scores were is dropped, and the replies stand in the alphabet's
    order, so nothing is left of what the record said before.
    """
    found = []
    for record, label in zip(records, labels, strict=True):
        judged: Judged = record.content
        order = _order(judged)
        content = replace(
            judged,
            replies=tuple(judged.replies[place] for place in order),
            scores=(1.0, 0.0) if label == 0 else (0.0, 1.0),
            reference=tuple(judged.reference[place] for place in order if judged.reference),
        )
        found.append(replace(record, content=content))
    return found


def expecting_flips(config: TaskConfig, probability: float) -> TaskConfig:
    """The settings with the robust loss told how often labels are wrong.

    Raises:
        BadInput: Another loss, another probability, or replies that the model writes itself, whose
            labels come from a reward.
    """
    settings = preference_config(config)
    if settings.method != "robust":
        raise BadInput(
            f"[task] method is {settings.method!r}; labels by randomised response need 'robust', "
            "the loss that wrong ones do not bias"
        )
    if settings.sampling.share:
        raise BadInput("[task] sampling.share is above 0; written replies have no labels to hide")
    given = settings.loss.label_smoothing
    if given and abs(given - probability) > 1e-6:
        raise BadInput(
            f"[task] loss.label_smoothing is {given:g}; randomised response flips {probability:.6f}"
        )
    loss: Mapping[str, Any] = config.get("loss", {})
    return {**config, "loss": {**loss, "label_smoothing": probability}}


def _order(judged: Judged) -> list[int]:
    """Positions of the replies in the alphabet's order."""
    return sorted(range(len(judged.replies)), key=lambda place: judged.replies[place])
