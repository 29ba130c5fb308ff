"""A study small enough to repeat hundreds of times, that runs the real strategies.

A frozen tanh net answers made-up questions the way a public teacher does; the hospitals' records
follow another teacher, whose hidden layers differ by more ranks than the adapters have, and every
hospital sees another part of the world. Five hospitals of 400 records train LoRA of rank 4 on both
hidden layers by DP-SGD: Poisson sample, one joint clip of all that moves, Gaussian noise, plain
steps. What trains, what is combined and what goes down is the strategy's business, as in a real
study. It is a comparison of mechanisms, and says nothing about language models. Noise here comes
from a seeded generator, because nobody's data is at stake.

Per-record norms come from the factors of each gradient, an outer product, as in Goodfellow (2015).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from wardround.strategies.base import Brief, Strategy, Update
from wardround.strategies.factors import CORE, A, B, background

WIDTH, RANK, CLASSES = 32, 4, 4
HOSPITALS, RECORDS, TESTED = 5, 400, 2000
ROUNDS, STEPS, SAMPLING_RATE, CLIP_NORM, DELTA = 40, 5, 0.1, 1.0, 1e-4
SCALING = 2.0
_LAYERS = ("first", "second")
_GAIN, _AWAY, _AWAY_RANK, _SHIFT = 1.5, 1.2, 8, 0.5


@dataclass(frozen=True)
class World:
    """Everything that is drawn before anybody trains.

    Attributes:
        weights: The frozen base: both hidden layers and the head.
        records: Questions, shape (hospitals, records, width), and answers.
        tests: Questions and answers that nobody trains on.
        adapter: The factors all start from: A drawn, B zero.
    """

    weights: Mapping[str, Tensor]
    records: tuple[Tensor, Tensor]
    tests: tuple[Tensor, Tensor]
    adapter: Mapping[str, Tensor]


def make_world(seed: int) -> World:
    """The world of one seed."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    weights = {layer: _GAIN * draw(WIDTH, WIDTH) / math.sqrt(WIDTH) for layer in _LAYERS}
    weights["head"] = draw(CLASSES, WIDTH)
    teacher = dict(weights)
    for layer in _LAYERS:
        away = draw(WIDTH, _AWAY_RANK) @ draw(_AWAY_RANK, WIDTH)
        teacher[layer] = weights[layer] + _AWAY * away / math.sqrt(_AWAY_RANK * WIDTH)
    shifts = _SHIFT * draw(HOSPITALS, 1, WIDTH)
    asked = draw(HOSPITALS, RECORDS, WIDTH) + shifts
    tested = (draw(HOSPITALS, TESTED // HOSPITALS, WIDTH) + shifts).reshape(-1, WIDTH)
    adapter = {}
    for layer in _LAYERS:
        adapter[layer + A] = (2 * torch.rand(RANK, WIDTH, generator=generator) - 1) / math.sqrt(
            WIDTH
        )
        adapter[layer + B] = torch.zeros(WIDTH, RANK)
    answers, truth = (_logits(teacher, {}, x).argmax(-1) for x in (asked, tested))
    return World(weights, (asked, answers), (tested, truth), adapter)


def run_toy(
    strategy: Strategy, world: World, noise_multiplier: float, learning_rate: float, seed: int
) -> float:
    """Accuracy on the tests after all rounds; of personal models, the mean over hospitals.

    Args:
        strategy: What is compared.
        world: Records and base.
        noise_multiplier: 0 means neither clip nor noise.
        learning_rate: Of plain steps on the noised mean gradient.
        seed: Of samples and noise.
    """
    generator = torch.Generator().manual_seed(seed)
    state = strategy.start(world.adapter)
    own: dict[str, Tensor] = {}
    for number in range(1, ROUNDS + 1):
        brief = strategy.brief(state, number)
        aggregation = strategy.begin(state, number)
        after = _train(world, brief, own, noise_multiplier, learning_rate, generator)
        own = {name: after[name] for name in brief.keeps}
        for hospital in range(HOSPITALS):
            change = {name: after[name][hospital] - brief.arrays[name] for name in brief.trains}
            aggregation.add(Update(f"hospital-{hospital}", change))
        state = aggregation.finish()
    model = strategy.deploy(state)
    shared = {**model.arrays, **model.background}
    kept = [{name: array[hospital] for name, array in own.items()} for hospital in range(HOSPITALS)]
    scores = [accuracy(world, {**shared, **mine}) for mine in (kept if own else kept[:1])]
    return sum(scores) / len(scores)


def accuracy(world: World, arrays: Mapping[str, Tensor]) -> float:
    """Share of tests answered as the hospitals' teacher does."""
    asked, truth = world.tests
    right = _logits(world.weights, arrays, asked).argmax(-1) == truth
    return float(right.double().mean())


def _train(
    world: World,
    brief: Brief,
    own: Mapping[str, Tensor],
    noise_multiplier: float,
    learning_rate: float,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """A round of all hospitals beside each other: each one's values after its steps."""
    arrays = {name: array.expand(HOSPITALS, *array.shape) for name, array in brief.arrays.items()}
    arrays |= {name: own.get(name, torch.zeros(HOSPITALS, WIDTH, RANK)) for name in brief.keeps}
    turns = brief.turns or ((*brief.trains, *brief.keeps),)
    for step in range(STEPS):
        moving = turns[step % len(turns)]
        asked, answers, counts = _sample(world, generator)
        sides = _outer_factors(world.weights, {**arrays, **brief.background}, asked, answers)
        for name, total in _clipped_sums(sides, moving, counts, noise_multiplier > 0).items():
            noise = torch.randn(total.shape, generator=generator)
            noised = total + noise_multiplier * CLIP_NORM * noise
            arrays[name] = arrays[name] - learning_rate * noised / (SAMPLING_RATE * RECORDS)
    return arrays


def _sample(world: World, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Poisson samples of all hospitals, filled up to the largest; what is filled up counts 0."""
    joins = torch.rand(HOSPITALS, RECORDS, generator=generator) < SAMPLING_RATE
    order = joins.to(torch.int8).argsort(dim=1, descending=True, stable=True)
    order = order[:, : int(joins.sum(1).max())]
    row = torch.arange(HOSPITALS).unsqueeze(1)
    asked, answers = (part[row, order] for part in world.records)
    return asked, answers, joins[row, order].float()


def _clipped_sums(
    sides: Mapping[str, tuple[Tensor, Tensor]],
    moving: tuple[str, ...],
    counts: Tensor,
    clip: bool,
) -> dict[str, Tensor]:
    """Each hospital's sum of gradients of what moves, a record's all clipped as one."""
    factors = counts
    if clip:
        squares = [sides[n][0].square().sum(-1) * sides[n][1].square().sum(-1) for n in moving]
        norms = torch.stack(squares).sum(0).sqrt()
        factors = counts * (CLIP_NORM / norms.clamp_min(1e-12)).clamp_max(1.0)
    return {n: (sides[n][0] * factors.unsqueeze(-1)).mT @ sides[n][1] for n in moving}


def _outer_factors(
    weights: Mapping[str, Tensor], arrays: Mapping[str, Tensor], asked: Tensor, answers: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """Each record's gradient of every factor, as the two vectors whose outer product it is.

    All arrays but the background have the hospital as their first axis.
    """
    inputs, narrow, wide, hidden = [asked], [], [], asked
    for layer in _LAYERS:
        narrow.append(hidden @ arrays[layer + A].mT)
        core = arrays.get(layer + CORE)
        wide.append(narrow[-1] if core is None else narrow[-1] @ core.mT)
        hidden = torch.tanh(_layer(weights[layer], arrays, layer, hidden, wide[-1]))
        inputs.append(hidden)
    logits = hidden @ weights["head"].T
    slope = (logits.softmax(-1) - functional.one_hot(answers, CLASSES)) @ weights["head"]
    sides = {}
    for place in (1, 0):
        layer = _LAYERS[place]
        slope = slope * (1 - inputs[place + 1].square())
        back = SCALING * slope @ arrays[layer + B]
        sides[layer + B] = SCALING * slope, wide[place]
        core = arrays.get(layer + CORE)
        if core is not None:
            sides[layer + CORE] = back, narrow[place]
            back = back @ core
        sides[layer + A] = back, inputs[place]
        behind = background(arrays, layer)
        through = slope @ weights[layer] + back @ arrays[layer + A]
        if behind is not None:
            left, right = behind.left.float(), behind.right.float()
            through = through + SCALING * (slope @ left) @ right
        slope = through
    return sides


def _logits(weights: Mapping[str, Tensor], arrays: Mapping[str, Tensor], asked: Tensor) -> Tensor:
    """What the net says, with the adapter where there is one."""
    hidden = asked
    for layer in _LAYERS:
        wide = None
        if layer + A in arrays:
            wide = hidden @ arrays[layer + A].mT
            if layer + CORE in arrays:
                wide = wide @ arrays[layer + CORE].mT
        hidden = torch.tanh(_layer(weights[layer], arrays, layer, hidden, wide))
    return hidden @ weights["head"].T


def _layer(
    weight: Tensor, arrays: Mapping[str, Tensor], layer: str, hidden: Tensor, wide: Tensor | None
) -> Tensor:
    """A hidden layer with its adapter and its background."""
    out = hidden @ weight.T
    if wide is not None:
        out = out + SCALING * wide @ arrays[layer + B].mT
    behind = background(arrays, layer)
    if behind is not None:
        out = out + SCALING * (hidden @ behind.right.float().T) @ behind.left.float().T
    return out
