"""Which layers hold a model's facts, from public probe facts: the part of MedLaSA that is global.

Ranks and layer masks shape what every hospital sends, so they must be the same everywhere and may
not follow private corrections; this looks at public facts and nothing else, and a study file
carries the result. Source: Xu et al. (2024), "Editing factual knowledge and explanatory ability of
medical LLMs" (MedLaSA), rank set; a mask by the highest trace is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from wardround.client.lora import find_linear
from wardround.client.models import Base
from wardround.client.tasks.editing.anatomy import Anatomy, Kind, find_anatomy
from wardround.client.tasks.editing.scales import (
    Normalisation,
    mean_profiles,
    normalised,
    rank_set,
)
from wardround.client.tasks.editing.subjects import place_subject
from wardround.client.tasks.editing.tracing import Trace, TraceConfig, subject_sigma, trace
from wardround.privacy.errors import BadInput


@dataclass(frozen=True, eq=False)
class Located:
    """What tracing public facts has shown.

    Attributes:
        facts: How many were traced.
        known: How many of them the model answers with the right first token.
        clean: Mean probability of its first answer token.
        corrupted: The same with the subject blurred.
        sigma: Deviation of the subjects' embeddings; goes into ``[task.trace]``.
        effects: Mean indirect effect by kind, shape ``(layers,)``.
        profiles: Mean restored probability by kind, shape ``(layers,)``.
    """

    facts: int
    known: int
    clean: float
    corrupted: float
    sigma: float
    effects: dict[Kind, Tensor]
    profiles: dict[Kind, Tensor]

    @property
    def total_effect(self) -> float:
        """What blurring the subject costs, on average."""
        return self.clean - self.corrupted

    def top_layers(self, kind: Kind, count: int) -> list[int]:
        """The layers whose restoration brings back most, in the model's order."""
        return sorted(self.effects[kind].topk(min(count, len(self.effects[kind]))).indices.tolist())


def locate(
    base: Base,
    facts: Sequence[tuple[str, str, str]],
    config: TraceConfig,
    on_fact: Callable[[int], None] = lambda done: None,
) -> Located:
    """Trace public facts.

    Args:
        base: The model.
        facts: Prompt, subject and answer of each; the answer only counts what the model knows.
        config: How; a ``sigma`` of 0 is replaced by that of the facts' own subjects.
        on_fact: Told how many are done.

    Raises:
        BadInput: No fact's subject occurs in its prompt.
    """
    anatomy = find_anatomy(base.model)
    placed = [
        (*place_subject(base.tokenizer, prompt, subject), answer)
        for prompt, subject, answer in facts
    ]
    usable = [(ids, places, answer) for ids, places, answer in placed if places]
    if not usable:
        raise BadInput("locate: no fact's subject occurs in its prompt")
    subjects = [[ids[place] for place in places] for ids, places, _ in usable]
    sigma = config.sigma or subject_sigma(base.model, subjects)
    traces: list[Trace] = []
    known = 0
    for number, (ids, places, answer) in enumerate(usable, 1):
        traces.append(trace(anatomy, ids, places, replace(config, sigma=sigma), sigma))
        first = base.tokenizer(" " + answer, add_special_tokens=False)["input_ids"][:1]
        known += [traces[-1].answer] == list(first)
        on_fact(number)
    count = len(traces)
    return Located(
        facts=count,
        known=known,
        clean=sum(one.clean for one in traces) / count,
        corrupted=sum(one.corrupted for one in traces) / count,
        sigma=sigma,
        effects={
            kind: torch.stack([t.indirect_effect(kind).mean(0) for t in traces]).mean(0)
            for kind in Kind
        },
        profiles=mean_profiles(traces),
    )


def rank_pattern(
    model: Any, located: Located, targets: Sequence[str], rank: int, how: Normalisation
) -> dict[str, int]:
    """The published rank of every targeted module, by its path from the list of blocks on.

    Raises:
        BadInput: A target matches no linear module.
    """
    anatomy: Anatomy = find_anatomy(model)
    ranks = {kind: rank_set(normalised(located.profiles[kind], how), rank) for kind in Kind}
    pattern: dict[str, int] = {}
    for path in find_linear(anatomy.model, targets):
        place = anatomy.place(path)
        if place is not None:
            kind, layer = place
            pattern[path] = ranks[kind][layer]
    return pattern
