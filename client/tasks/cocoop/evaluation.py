"""How often names are right: base and new names apart, their harmonic mean, and zero-shot beside.

Pictures of base names compete among base names, those of new names among new names, never mixed.
Source: Zhou et al. (2022), CoCoOp, section 4.1. Privacy: exact figures about pictures; they stay
where the pictures are.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from wardround.client.tasks.cocoop.config import CocoopConfig
from wardround.client.tasks.cocoop.encoding import make_template, normalised, word_features
from wardround.client.tasks.cocoop.learner import PromptLearner
from wardround.client.tasks.cocoop.records import Picture


def evaluate_names(
    learner: PromptLearner, pictures: Sequence[Picture], config: CocoopConfig
) -> dict[str, float]:
    """Accuracies of the learnt prompt and of zero-shot, and what a medical set asks for besides."""
    found: dict[str, float] = {}
    for half, names in halves(learner, config).items():
        own = [picture for picture in pictures if picture.name in names]
        if not own:
            continue
        labels = torch.tensor([names.index(picture.name) for picture in own])
        logits = learner.predict(own, names, config.image).cpu()
        found[half] = accuracy(logits, labels)
        by_hand = zero_shot(learner, own, names, config).cpu()
        found[f"zero_shot_{half}"] = accuracy(by_hand, labels)
        found[f"{half}_macro_f1"] = macro_f1(logits, labels)
        found[f"{half}_auroc"] = macro_auroc(logits, labels)
    for before in ("", "zero_shot_"):
        if f"{before}base" in found and f"{before}new" in found:
            found[f"{before}h"] = harmonic_mean(found[f"{before}base"], found[f"{before}new"])
    return found


def halves(learner: PromptLearner, config: CocoopConfig) -> dict[str, tuple[str, ...]]:
    """The names that compete with each other, base and new; those a prompt can be asked for."""
    if learner.settings.class_specific:  # vectors of their own mean nothing to other names
        return {"base": config.base}
    return {"base": config.base, "new": config.new}


@torch.no_grad()
def zero_shot(
    learner: PromptLearner,
    pictures: Sequence[Picture],
    names: tuple[str, ...],
    config: CocoopConfig,
) -> Tensor:
    """Logits of the untouched model under prompts written by hand, averaged over templates."""
    clip = learner.clip
    longest = clip.config.text_config.max_position_embeddings
    by_template = [
        word_features(
            clip, make_template(learner.tokenizer, [[text.format(n)] for n in names], longest)
        )
        for text in config.templates
    ]
    texts = normalised(torch.stack(by_template).mean(0))
    features = learner.look(pictures, config.image)
    logits: Tensor = clip.logit_scale.exp() * features.to(texts) @ texts.T
    return logits


def harmonic_mean(base: float, new: float) -> float:
    """``2bn / (b + n)``; 0 where both are 0.

    >>> round(harmonic_mean(80.47, 71.69), 2)
    75.83
    """
    return 2 * base * new / (base + new) if base + new else 0.0


def averages(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Column means of ``base`` and ``new`` over data sets or seeds, and both averages of H.

    Returns:
        ``base``, ``new``; ``h``, the harmonic mean of the two, as papers publish it; ``mean_h``,
        the mean of the rows' own.
    """
    base = statistics.fmean(row["base"] for row in rows)
    new = statistics.fmean(row["new"] for row in rows)
    own = statistics.fmean(harmonic_mean(row["base"], row["new"]) for row in rows)
    return {"base": base, "new": new, "h": harmonic_mean(base, new), "mean_h": own}


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of rows whose label has the highest logit."""
    return float((logits.argmax(1) == labels).double().mean())


def macro_f1(logits: Tensor, labels: Tensor) -> float:
    """Mean of each name's F1, over names that occur or are said."""
    said = logits.argmax(1)
    scores = []
    for label in sorted({*said.tolist(), *labels.tolist()}):
        right = int(((said == label) & (labels == label)).sum())
        both = int((said == label).sum()) + int((labels == label).sum())
        scores.append(2 * right / both)
    return statistics.fmean(scores)


def macro_auroc(logits: Tensor, labels: Tensor) -> float:
    """Mean over names of how often a picture of it outranks another picture; ties count half.

    Names that are on all pictures or on none are left out; 0.5 where all are.
    """
    from scipy.stats import rankdata

    scores = []
    probabilities = logits.double().softmax(1)
    for label in range(logits.shape[1]):
        is_own = (labels == label).numpy()
        own = int(is_own.sum())
        others = len(is_own) - own
        if own and others:
            ranks = rankdata(probabilities[:, label].numpy())
            scores.append(float(ranks[is_own].sum() - own * (own + 1) / 2) / (own * others))
    return statistics.fmean(scores) if scores else 0.5
