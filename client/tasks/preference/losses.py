"""The losses on pairs: from four sequence log-likelihoods to one number a pair.

Every loss here is a function of its own pair alone. Losses that are not (the sorted ones of
"alignment via optimal transport", a running mean over the batch, a mean over the tokens of the
batch) have no sensitivity a single pair could be charged for, and are refused by name.

Sources: Rafailov et al. (2023) DPO; Azar et al. (2024) IPO; Zhao et al. (2023) SLiC; Chowdhury et
al. (2024) robust DPO; Mitchell (2023) conservative DPO; Chen et al. (2024) NCA; D'Oosterlinck et
al. (2024) APO; Ji et al. (2024) EXO; Wu et al. (2024) SPPO; Lu et al. (2024) DiscoPOP; Meng et al.
(2024) SimPO; Hong et al. (2024) ORPO. Tajwar et al. (2024), "Preference fine-tuning of LLMs should
leverage suboptimal, on-policy data", compares them in one loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from wardround.privacy.errors import BadInput
from wardround.privacy.tables import nearest


@dataclass(frozen=True)
class Likelihoods:
    """Log-likelihoods of the two replies of each pair, all of shape ``(pairs,)``.

    Attributes:
        chosen: Sum over the chosen reply's tokens, under the model that trains.
        rejected: The same for the rejected reply.
        reference_chosen: The chosen reply under the reference model.
        reference_rejected: The rejected reply under the reference model.
        chosen_tokens: How many tokens the chosen reply has, its end included.
        rejected_tokens: How many tokens the rejected reply has.
    """

    chosen: Tensor
    rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor

    @property
    def gain_chosen(self) -> Tensor:
        """How much likelier the chosen reply is than under the reference."""
        return self.chosen - self.reference_chosen

    @property
    def gain_rejected(self) -> Tensor:
        """How much likelier the rejected reply is than under the reference."""
        return self.rejected - self.reference_rejected

    @property
    def margin(self) -> Tensor:
        """Difference of the two gains; the implicit reward's margin is ``beta`` times this."""
        return self.gain_chosen - self.gain_rejected

    @property
    def mean_margin(self) -> Tensor:
        """The margin with each gain divided by its reply's tokens."""
        return self.gain_chosen / self.chosen_tokens - self.gain_rejected / self.rejected_tokens


@dataclass(frozen=True)
class LossSettings:
    """What the losses take besides likelihoods.

    Attributes:
        beta: How far the model may go from the reference; larger is closer. For IPO its tau.
        label_smoothing: Probability that a label is the wrong way round; the losses ``robust``,
            ``conservative`` and ``exo`` use it.
        reward_margin: SimPO's gamma, and SLiC's delta.
        regularisation: SLiC's and ORPO's weight of the chosen reply's own log-likelihood.
        temperature: DiscoPOP's tau.
    """

    beta: float = 0.1
    label_smoothing: float = 0.0
    reward_margin: float = 0.5
    regularisation: float = 1.0
    temperature: float = 0.05

    def __post_init__(self) -> None:
        for name in ("beta", "temperature"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ValueError(f"{name} is {value}; it must be greater than 0")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(f"label_smoothing is {self.label_smoothing}; it must be in [0, 0.5)")
        for name in ("reward_margin", "regularisation"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more")


def dpo(pairs: Likelihoods, settings: LossSettings) -> Tensor:
    """Direct preference optimisation, equation 7."""
    return -logsigmoid(settings.beta * pairs.margin)


def dpo_normalised(pairs: Likelihoods, settings: LossSettings) -> Tensor:
    """DPO on gains per token."""
    return -logsigmoid(settings.beta * pairs.mean_margin)


def ipo(pairs: Likelihoods, settings: LossSettings) -> Tensor:
    """Identity preference optimisation, equation 17, on whole replies; beta is tau."""
    return (pairs.margin - 1 / (2 * settings.beta)).square()


def ipo_normalised(pairs: Likelihoods, settings: LossSettings) -> Tensor:
    """IPO on gains per token, as TRL reads it."""
    return (pairs.mean_margin - 1 / (2 * settings.beta)).square()


def hinge(pairs: Likelihoods, settings: LossSettings) -> Tensor:
    """SLiC's ranking loss on implicit rewards, as TRL reads it."""
    return (1 - settings.beta * pairs.margin).clamp(min=0)


def conservative(pairs: Likelihoods, settings: LossSettings) -> Tensor:
    """DPO for labels that are wrong with probability ``label_smoothing``: the expected loss."""
    wrong, logits = settings.label_smoothing, settings.beta * pairs.margin
    return -(1 - wrong) * logsigmoid(logits) - wrong * logsigmoid(-logits)


def robust(pairs: Likelihoods, settings: LossSettings) -> Tensor:
    """DPO for wrong labels, unbiased for the loss on right ones; negative values are possible."""
    wrong, logits = settings.label_smoothing, settings.beta * pairs.margin
    kept, flipped = (1 - wrong) * logsigmoid(logits), wrong * logsigmoid(-logits)
    return (flipped - kept) / (1 - 2 * wrong)


def nca(pairs: Likelihoods, settings: LossSettings) -> Tensor:
    """Noise-contrastive alignment for pairs, equation 11."""
    good, bad = settings.beta * pairs.gain_chosen, settings.beta * pairs.gain_rejected
    return -logsigmoid(good) - 0.5 * logsigmoid(-good) - 0.5 * logsigmoid(-bad)


def apo_zero(pairs: Likelihoods, settings: LossSettings) -> Tensor:
    """Anchored preference optimisation for a chosen reply better than the model's."""
    good, bad = settings.beta * pairs.gain_chosen, settings.beta * pairs.gain_rejected
    return 1 - torch.sigmoid(good) + torch.sigmoid(bad)


def apo_down(pairs: Likelihoods, settings: LossSettings) -> Tensor:
    """Anchored preference optimisation for a chosen reply worse than the model's."""
    good = settings.beta * pairs.gain_chosen
    return torch.sigmoid(good) + 1 - torch.sigmoid(settings.beta * pairs.margin)


def exo(pairs: Likelihoods, settings: LossSettings) -> Tensor:
    """Exact optimisation for pairs, equation 16; needs ``label_smoothing`` above 0."""
    wrong, logits = settings.label_smoothing, settings.beta * pairs.margin
    if not wrong:
        raise ValueError("label_smoothing is 0; exo needs more")
    likely = torch.sigmoid(logits)
    kept = likely * (logsigmoid(logits) - math.log1p(-wrong))
    return kept + (1 - likely) * (logsigmoid(-logits) - math.log(wrong))


def sppo(pairs: Likelihoods, settings: LossSettings) -> Tensor:
    """Self-play preference optimisation with hard labels, equation 4.7."""
    half = 1 / (2 * settings.beta)
    return (pairs.gain_chosen - half).square() + (pairs.gain_rejected + half).square()


def discopop(pairs: Likelihoods, settings: LossSettings) -> Tensor:
    """DiscoPOP's blend of logistic and exponential loss, appendix E."""
    logits = settings.beta * pairs.margin
    share = torch.sigmoid(logits / settings.temperature)
    return -(1 - share) * logsigmoid(logits) + share * torch.exp(-logits)


def simpo(pairs: Likelihoods, settings: LossSettings) -> Tensor:
    """SimPO, equation 6: no reference, log-likelihoods per token, a target margin."""
    difference = pairs.chosen / pairs.chosen_tokens - pairs.rejected / pairs.rejected_tokens
    return -logsigmoid(settings.beta * difference - settings.reward_margin)


def odds_ratio(pairs: Likelihoods, settings: LossSettings) -> Tensor:
    """ORPO's odds-ratio term, equation 7, without the likelihood it is added to."""
    good = pairs.chosen / pairs.chosen_tokens
    bad = pairs.rejected / pairs.rejected_tokens
    log_odds = good - bad - (_log_one_minus_exp(good) - _log_one_minus_exp(bad))
    return -logsigmoid(log_odds)


def orpo(pairs: Likelihoods, settings: LossSettings) -> Tensor:
    """ORPO, equation 6: the chosen reply's mean loss plus the odds-ratio term times ``beta``."""
    likelihood = -pairs.chosen / pairs.chosen_tokens
    return settings.regularisation * likelihood + settings.beta * odds_ratio(pairs, settings)


def slic(pairs: Likelihoods, settings: LossSettings) -> Tensor:
    """SLiC-HF, equation 1: a hinge on plain log-likelihoods plus the chosen reply's own loss."""
    hinged = (settings.reward_margin - pairs.chosen + pairs.rejected).clamp(min=0)
    return hinged - settings.regularisation * pairs.chosen


def chosen_only(pairs: Likelihoods, settings: LossSettings) -> Tensor:
    """Pref-FT: plain fine-tuning on the chosen reply, its mean loss over tokens."""
    return -pairs.chosen / pairs.chosen_tokens


def _log_one_minus_exp(value: Tensor) -> Tensor:
    """log(1 - exp(value)) for value below 0, accurate at both ends (Maechler 2012)."""
    threshold = -0.6931471805599453
    near = torch.log(-torch.expm1(value.clamp(min=threshold)))
    far = torch.log1p(-torch.exp(value.clamp(max=threshold)))
    return torch.where(value > threshold, near, far)


PairLoss = Callable[[Likelihoods, LossSettings], Tensor]
PAIR_LOSSES: Mapping[str, PairLoss] = {
    "dpo": dpo,
    "dpo-normalised": dpo_normalised,
    "ipo": ipo,
    "ipo-normalised": ipo_normalised,
    "hinge": hinge,
    "conservative": conservative,
    "robust": robust,
    "nca": nca,
    "apo-zero": apo_zero,
    "apo-down": apo_down,
    "exo": exo,
    "sppo": sppo,
    "discopop": discopop,
    "simpo": simpo,
    "orpo": orpo,
    "slic": slic,
    "pref-ft": chosen_only,
}
WITHOUT_REFERENCE = frozenset({"simpo", "orpo", "slic", "pref-ft"})
_COUPLED = {
    "aot": "it sorts the margins of a whole batch",
    "aot-unpaired": "it sorts the rewards of a whole batch",
    "bco": "it subtracts a running mean over batches",
    "sft": "it divides by the number of tokens in the batch; pref-ft is the form per pair",
}


def find_loss(name: str) -> PairLoss:
    """The loss of this name.

    Raises:
        BadInput: There is none, or it couples pairs, so that no pair could be charged for it.
    """
    if name in _COUPLED:
        raise BadInput(
            f"[task] loss is {name!r}: {_COUPLED[name]}, which couples the pairs of different "
            "people"
        )
    if name not in PAIR_LOSSES:
        hint = nearest(name, list(PAIR_LOSSES))
        raise BadInput(f"[task] loss is {name!r}: no such loss{hint}")
    return PAIR_LOSSES[name]
