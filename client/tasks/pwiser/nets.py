"""Nets that predict a click and a click with conversion, each kind with its own way of sharing.

Layer norm everywhere: batch norm would couple units. Every net returns two logits a row, of a click
and of a conversion among all exposures, so losses and scores do not ask which net they are of.
Sources: Ma et al. (2018), "Modeling task relationships in multi-task learning with multi-gate
mixture-of-experts" (MMoE); Tang et al. (2020), "Progressive layered extraction" (PLE); Ma et al.
(2018), "Entire space multi-task model" (ESMM); Xi et al. (2021), "Modeling the sequential
dependence among audience multi-step conversions" (AITM).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from wardround.client.tasks.pwiser.columns import Columns
from wardround.client.tasks.pwiser.config import NetConfig, NetKind

CLICK, CONVERSION = 0, 1


class Features(nn.Module):
    """Looks categories up and puts all numbers through one layer, as one field more.

    Args:
        columns: Sizes; every column has one entry more, for values beyond them.
        width: Numbers a field becomes.
    """

    starts: Tensor

    def __init__(self, columns: Columns, width: int) -> None:
        super().__init__()
        sizes = [values + 1 for values in columns.categorical.values()]
        starts = torch.tensor([sum(sizes[:place]) for place in range(len(sizes))])
        self.register_buffer("starts", starts.long(), persistent=False)
        self.table = nn.Embedding(max(1, sum(sizes)), width)
        self.numbers = nn.Linear(len(columns.numerical), width) if columns.numerical else None
        self.width = width * (len(sizes) + bool(columns.numerical))

    def forward(self, categorical: Tensor, numerical: Tensor) -> Tensor:
        """Fields beside each other, shape ``(rows, width)``."""
        looked_up: Tensor = self.table(categorical + self.starts).flatten(1)
        if self.numbers is None:
            return looked_up.to(self.table.weight)
        return torch.cat([looked_up, self.numbers(numerical.to(looked_up))], dim=1)


class Layers(nn.Sequential):
    """Dense layers, each with layer norm and a rectifier."""

    def __init__(self, width: int, widths: Sequence[int]) -> None:
        steps: list[nn.Module] = []
        for before, after in zip((width, *widths), widths, strict=False):
            steps += [nn.Linear(before, after), nn.LayerNorm(after), nn.ReLU()]
        super().__init__(*steps)


class Mixture(nn.Module):
    """What a gate makes of experts' answers: weights that add up to one, by the features."""

    def __init__(self, width: int, experts: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, experts)

    def forward(self, features: Tensor, answers: Sequence[Tensor]) -> Tensor:
        """The weighted sum, of the shape of one answer."""
        weights: Tensor = self.gate(features).softmax(-1)
        return (torch.stack(list(answers), dim=1) * weights.unsqueeze(-1)).sum(1)


class Transfer(nn.Module):
    """AITM's: how much of the click's state goes into the conversion's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.passing = nn.Linear(width, width)
        self.value, self.key, self.query = (nn.Linear(width, width) for _ in range(3))

    def forward(self, click: Tensor, conversion: Tensor) -> Tensor:
        """The conversion's new state, shape ``(rows, width)``."""
        both = torch.stack([self.passing(click), conversion], dim=1)
        match = (self.key(both) * self.query(both)).sum(-1) / math.sqrt(both.shape[-1])
        moved: Tensor = self.value(both) * match.softmax(-1).unsqueeze(-1)
        return moved.sum(1)


class Net(nn.Module):
    """Features, something shared or not, and a tower for each prediction.

    Args:
        columns: What comes in.
        config: Kind and widths.
    """

    def __init__(self, columns: Columns, config: NetConfig) -> None:
        super().__init__()
        self.kind = config.kind
        self.features = Features(columns, config.embedding)
        width, out = self.features.width, config.bottom[-1]

        def layers(count: int) -> nn.ModuleList:
            return nn.ModuleList(Layers(width, config.bottom) for _ in range(count))

        shared, own = _experts(config)
        self.shared, self.own_click, self.own_conversion = map(layers, (shared, own, own))
        gated = config.kind in (NetKind.MMOE, NetKind.PLE)
        self.gates = nn.ModuleList(Mixture(width, shared + own) for _ in range(2 * gated))
        self.transfer = Transfer(config.tower[-1]) if config.kind is NetKind.AITM else None
        self.towers = nn.ModuleList(Layers(out, config.tower) for _ in range(2))
        self.heads = nn.ModuleList(nn.Linear(config.tower[-1], 1) for _ in range(2))

    def forward(self, categorical: Tensor, numerical: Tensor) -> Tensor:
        """Logits of a click and of a conversion among all exposures, shape ``(rows, 2)``."""
        features = self.features(categorical, numerical)
        common = [expert(features) for expert in self.shared]
        states = [
            self.towers[task](self._below(task, features, common)) for task in (CLICK, CONVERSION)
        ]
        if self.transfer is not None:
            states[CONVERSION] = self.transfer(states[CLICK], states[CONVERSION])
        logits = torch.cat([head(s) for head, s in zip(self.heads, states, strict=True)], dim=1)
        return _both(logits) if self.kind is NetKind.ESMM else logits

    def _below(self, task: int, features: Tensor, common: Sequence[Tensor]) -> Tensor:
        """What a prediction's tower stands on."""
        experts = self.own_click if task == CLICK else self.own_conversion
        own = [expert(features) for expert in experts]
        if len(self.gates):
            mixed: Tensor = self.gates[task](features, [*common, *own])
            return mixed
        return (own or common)[0]


def _experts(config: NetConfig) -> tuple[int, int]:
    """How many bottoms are shared, and how many each prediction has of its own."""
    return {
        NetKind.SINGLE: (0, 1),
        NetKind.SHARED_BOTTOM: (1, 0),
        NetKind.MMOE: (config.experts, 0),
        NetKind.PLE: (config.experts, config.own_experts),
        NetKind.ESMM: (0, 1),
        NetKind.AITM: (0, 1),
    }[config.kind]


def _both(logits: Tensor) -> Tensor:
    """ESMM: from logits of a click, and of a conversion after one, to that of both together.

    With ``a`` and ``b`` the two probabilities, ``1 - ab = (1 - a) + a (1 - b)``, in logarithms so
    that neither end underflows.
    """
    click, after = logits.unbind(1)
    yes = functional.logsigmoid(click) + functional.logsigmoid(after)
    no = torch.logaddexp(
        functional.logsigmoid(-click),
        functional.logsigmoid(click) + functional.logsigmoid(-after),
    )
    return torch.stack([click, yes - no], dim=1)


def draw_values(net: nn.Module, generator: torch.Generator) -> None:
    """First values from a public generator: matrices normal with deviation 1/sqrt(inputs)."""
    rules: dict[type, Callable[[nn.Module], float]] = {
        nn.Linear: lambda layer: 1 / math.sqrt(layer.in_features),  # type: ignore[arg-type]
        nn.Embedding: lambda layer: 1.0,
    }
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.fill_(1.0)
                module.bias.zero_()
            rule = rules.get(type(module))
            if rule is not None:
                weight: Tensor = module.weight  # type: ignore[assignment]
                weight.copy_(rule(module) * torch.randn(weight.shape, generator=generator))
                if isinstance(module, nn.Linear) and module.bias is not None:
                    module.bias.zero_()
