"""Exposure of a planted secret: how far up the model's own ranking of all secrets the true one is.

"The number of patient k is 4 7 1 1", once or many times among other patients' records. Whoever has
the model scores all 10,000 numbers; exposure is log2(10000) - log2(rank of the true one): 13.3 bits
when it comes first, 1.44 on average when the model knows nothing. Source: Carlini et al. (2019),
"The secret sharer", section 4. A tiny model predicts digit after digit from who is meant and the
digit before, so all numbers can be ranked exactly instead of by sampling.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from wardround.privacy.limits import most_exposure
from wardround.privacy.shadows import Examples, Heads, Mechanism, Training, train_heads

DIGITS = 4
BASE = 10
_START = BASE  # stands before the first digit


@dataclass(frozen=True)
class ExposureSetup:
    """Who is in the data.

    Attributes:
        copies: How often each canary's record occurs; each copy is a privacy unit of its own.
        canaries: Patients whose number is asked for, in each model.
        others: Patients whose numbers are trained on once and never asked for.
        models: Independent repetitions, for a standard error.
        width: Length of a feature vector.
        training: How the models train.
    """

    copies: int = 1
    canaries: int = 8
    others: int = 32
    models: int = 12
    width: int = 96
    training: Training = field(default_factory=Training)

    def __post_init__(self) -> None:
        for name, least in (("copies", 1), ("canaries", 1), ("others", 0), ("models", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {least} or more")


@dataclass(frozen=True)
class ExposureResult:
    """How well secrets were remembered.

    Attributes:
        setup: Who was in the data.
        mechanism: What stood between records and model.
        exposure: Mean over canaries and models, in bits.
        exposure_error: Its standard error over models.
        exposure_limit: The highest mean any attack could reach; grows with the copies, because
            equal records are protected as a group.
        first: Share of secrets that came first of all.
    """

    setup: ExposureSetup
    mechanism: Mechanism
    exposure: float
    exposure_error: float
    exposure_limit: float
    first: float


def attack_secrets(
    setup: ExposureSetup, mechanism: Mechanism, generator: torch.Generator
) -> ExposureResult:
    """Plant made-up numbers, train, rank all numbers."""
    people = setup.canaries + setup.others
    shape = (setup.models, people, DIGITS)
    digits = torch.randint(BASE, shape, generator=generator)
    table = _features(people, setup.width, generator)
    before = torch.cat([torch.full_like(digits[..., :1], _START), digits[..., :-1]], -1)
    person = torch.arange(people).view(1, people, 1)
    place = torch.arange(DIGITS).view(1, 1, DIGITS)
    copies = torch.ones(setup.models, people)
    copies[:, : setup.canaries] = setup.copies
    records = setup.canaries * setup.copies + setup.others
    examples = Examples(table[person, place, before], digits, copies, BASE, records)
    heads = train_heads(examples, setup.training, mechanism, generator)
    asked = digits[:, : setup.canaries]
    ranks = _ranks(heads, table[: setup.canaries], asked).double()
    exposure = math.log2(BASE**DIGITS) - ranks.log2()
    by_model = exposure.mean(1)
    return ExposureResult(
        setup=setup,
        mechanism=mechanism,
        exposure=float(by_model.mean()),
        exposure_error=float(by_model.std()) / math.sqrt(setup.models),
        exposure_limit=most_exposure(
            BASE**DIGITS, mechanism.mu(setup.training.steps, setup.copies)
        ),
        first=float((ranks == 1).double().mean()),
    )


def _features(people: int, width: int, generator: torch.Generator) -> Tensor:
    """A frozen random feature vector for each person, place and digit before.

    Shape ``(people, DIGITS, BASE + 1, width)``, of length about 1.
    """
    person = torch.randn((people, 1, 1, width), generator=generator)
    place = torch.randn((1, DIGITS, 1, width), generator=generator)
    before = torch.randn((1, 1, BASE + 1, width), generator=generator)
    return (person + place + before).tanh() / math.sqrt(width)


def _ranks(heads: Heads, table: Tensor, digits: Tensor) -> Tensor:
    """Rank of each true number among all, from 1; ties count half, shape ``(models, people)``."""
    people, _, befores, width = table.shape
    flat = table.view(1, people, DIGITS * befores, width)
    scores = heads.log_probabilities(flat).view(-1, people, DIGITS, befores, BASE)
    total = scores[:, :, 0, _START].reshape(*scores.shape[:2], BASE)
    for place in range(1, DIGITS):
        following = scores[:, :, place, :BASE]  # the digit before, then this one
        ending = total.reshape(*total.shape[:2], -1, BASE, 1)  # by the last digit so far
        total = (ending + following.unsqueeze(2)).flatten(2)
    weights = BASE ** torch.arange(DIGITS - 1, -1, -1)
    true = total.gather(-1, (digits * weights).sum(-1, keepdim=True))
    better = (total > true).sum(-1)
    equal = (total == true).sum(-1) - 1
    return 1 + better + equal / 2
